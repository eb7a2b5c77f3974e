// node call.mjs MODULE, with [[function, argument, ...], ...] on stdin: what each call returns, as JSON.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const module = await import(pathToFileURL(process.argv[2]));
const calls = JSON.parse(readFileSync(0, "utf8"));
const plain = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
console.log(JSON.stringify(calls.map(([name, ...given]) => module[name](...given)), plain));
