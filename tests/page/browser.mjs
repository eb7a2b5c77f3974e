// A headless browser over its debugging pipe (Chrome DevTools Protocol): enough to open a file, act and look.

import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PATIENCE = 120_000; // milliseconds: for machines that are busy
const FLAGS = ["--headless", "--no-sandbox", "--no-zygote", "--single-process", "--disable-gpu", "--mute-audio",
  "--disable-dev-shm-usage", "--remote-debugging-pipe"];

export async function launch(path) {
  const profile = mkdtempSync(join(tmpdir(), "zoo-browser-"));
  const process = spawn(path, [...FLAGS, `--user-data-dir=${profile}`, "about:blank"],
    { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  const [outgoing, incoming] = [process.stdio[3], process.stdio[4]];
  const waiting = new Map();
  const events = [];
  let number = 0;
  let rest = "";
  incoming.on("data", (chunk) => {
    const messages = (rest + chunk).split("\0");
    rest = messages.pop();
    for (const message of messages.map(JSON.parse)) {
      if (message.id === undefined) events.push(message);
      else waiting.get(message.id)(message);
    }
  });
  const send = (method, params = {}, sessionId = undefined) => new Promise((resolve, reject) => {
    const id = ++number;
    const timer = setTimeout(() => reject(new Error(`${method} was not answered`)), PATIENCE);
    waiting.set(id, ({ result, error }) => {
      clearTimeout(timer);
      if (error) reject(new Error(`${method}: ${error.message}`));
      else resolve(result);
    });
    outgoing.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  });
  return { send, events, close: () => process.kill() };
}

// A page that remembers what its console said, what it threw and what it asked for.
export async function open(browser, address, { width, height, dark = false, phone = false }) {
  const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
  const send = (method, params) => browser.send(method, params, sessionId);
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await send(`${domain}.enable`);
  await send("Emulation.setDeviceMetricsOverride",
    { width, height, deviceScaleFactor: phone ? 2 : 1, mobile: phone });
  await send("Emulation.setEmulatedMedia",
    { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] });
  await send("Page.navigate", { url: address });
  const page = { send, evaluate: (code) => evaluate(send, code), faults: () => faultsOf(browser.events, sessionId),
    requests: () => requestsOf(browser.events, sessionId) };
  await page.evaluate(`new Promise((resolve) => {
    const look = () => document.documentElement?.dataset.ready ? resolve() : setTimeout(look, 50);
    look();
  })`);
  return page;
}

export async function screenshot(page, path, clip = undefined) {
  const { data } = await page.send("Page.captureScreenshot",
    { format: "png", captureBeyondViewport: Boolean(clip), clip });
  writeFileSync(path, Buffer.from(data, "base64"));
}

async function evaluate(send, code) {
  const { result, exceptionDetails } = await send("Runtime.evaluate",
    { expression: code, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

function faultsOf(events, sessionId) {
  return events.filter((event) => event.sessionId === sessionId).flatMap(({ method, params }) => {
    if (method === "Runtime.exceptionThrown") return [params.exceptionDetails.exception?.description ?? "thrown"];
    if (method === "Log.entryAdded") return [params.entry.text];
    return method === "Runtime.consoleAPICalled" ? [JSON.stringify(params.args)] : [];
  });
}

function requestsOf(events, sessionId) {
  return events.filter((event) => event.sessionId === sessionId && event.method === "Network.requestWillBeSent")
    .map(({ params }) => params.request.url).filter((url) => !url.startsWith("data:"));
}
