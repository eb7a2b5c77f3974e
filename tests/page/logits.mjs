// node logits.mjs ENGINE, with [{network, images, bits}, ...] on stdin: for each the logits of every image and the bytes
// of the weights, as JSON. bits: null for weights as they are stored.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { bytesAt, decodeNetwork, quantised, run } = await import(pathToFileURL(process.argv[2]));

function answer({ network: plain, images, bits }) {
  const stored = decodeNetwork(plain);
  const network = bits === null ? stored : quantised(stored, bits);
  const logits = images.map((image) => Array.from(run(network, Float32Array.from(image))));
  return { logits, bytes: bits === null ? null : bytesAt(stored, bits) };
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(answer)));
