// Draw a digit, and the networks answer while you do, at any number of bits.

import { byId, element } from "./dom.mjs";
import { digitOf, normalised, SIDE } from "./drawing.mjs";
import { bytesAt, decodeBytes, decodeNetwork, quantised, run, softmax } from "./engine.mjs";
import { countText, exactText, percentText, sizeText } from "./numbers.mjs";

const STORED = 9; // the slider's place for weights as they are
const STEP = 0.006; // of the pad: points nearer than this add nothing but work

export function startDrawing(drawing) {
  if (!drawing || !drawing.networks.length) {
    byId("draw").replaceChildren(element("h2", {}, "Draw a digit"),
      element("p", { class: "absent" }, "Not here: no stored network takes digits."));
    return;
  }
  const state = { strokes: [], pixels: new Float32Array(SIDE * SIDE), truth: null, turn: 0, inked: false };
  const players = drawing.networks.map((plain) => player(plain, drawing.dataset));
  byId("answers").replaceChildren(...players.map(({ row }) => row));
  const bits = byId("bits");
  const answer = () => answerAll(players, state, Number(bits.value));
  const show = () => {
    paint(state);
    byId("draw-truth").textContent = state.truth === null ? "" : `A test image of a ${state.truth}.`;
    answer();
  };
  pad(byId("pad"), state, () => {
    state.pixels = digitOf(state.strokes);
    state.truth = null;
    show();
  });
  byId("clear").addEventListener("click", () => {
    Object.assign(state, { strokes: [], pixels: new Float32Array(SIDE * SIDE), truth: null });
    show();
  });
  bits.addEventListener("input", () => { sayBits(bits); answer(); });
  byId("samples").replaceChildren(...drawing.samples.map((sample) => sampleButton(sample, (pixels) => {
    Object.assign(state, { strokes: [], pixels, truth: sample.label });
    show();
  })));
  byId("samples-box").hidden = !drawing.samples.length;
  leftOut(drawing.left_out);
  sayBits(bits);
  show();
}

function player(plain, dataset) {
  const network = decodeNetwork(plain);
  const label = plain.stem.replace(`.${dataset}`, "");
  const [said, share, cost, speed] = ["said", "share", "cost", "speed"].map((name) => element("span", { class: name }));
  const bars = Array.from({ length: 10 }, (_, digit) => element("span", { class: "digit" }, String(digit)));
  const row = element("li", { class: "answer", "data-network": plain.stem }, said,
    element("div", {}, element("a", { href: `#card/${dataset}/${label}` }, label), share, cost, speed),
    element("div", { class: "bars", "aria-hidden": "true" }, bars));
  return { plain, network, row, said, share, cost, speed, bars, cache: new Map([[STORED, network]]) };
}

// One network a turn of the event loop, so that the pen never waits for all; a newer stroke ends the older round.
async function answerAll(players, state, bits) {
  const turn = ++state.turn;
  byId("answers").setAttribute("aria-busy", "true");
  state.inked = state.pixels.some((ink) => ink > 0);
  for (const one of players) {
    await new Promise((resume) => setTimeout(resume));
    if (turn !== state.turn) return;
    answerOne(one, state, bits);
  }
  byId("answers").setAttribute("aria-busy", "false");
}

function answerOne(one, { pixels, inked }, bits) {
  if (!one.cache.has(bits)) one.cache.set(bits, quantised(one.network, bits));
  const bytes = bits === STORED ? `${sizeText(one.plain.bytes)} file` : `${sizeText(bytesAt(one.network, bits))} at ${bits} bits`;
  one.cost.textContent = `${bytes} · ${countText(one.plain.macs)} MACs`;
  one.cost.title = `${exactText(one.plain.macs)} MACs; ${exactText(one.plain.correct)} of ${exactText(one.plain.total)} ` +
    "test images right as stored";
  if (!inked) return clearAnswer(one);
  const began = performance.now();
  const shares = softmax(run(one.cache.get(bits), normalised(pixels, one.plain.mean, one.plain.std)));
  const took = performance.now() - began;
  const best = shares.indexOf(Math.max(...shares));
  one.said.textContent = String(best);
  one.share.textContent = percentText(shares[best]);
  one.speed.textContent = `${took.toFixed(took < 10 ? 1 : 0)} ms here`;
  one.bars.forEach((node, digit) => {
    node.style.setProperty("--share", shares[digit]);
    node.classList.toggle("best", digit === best);
  });
}

function clearAnswer(one) {
  one.said.textContent = "–";
  one.share.textContent = one.speed.textContent = "";
  one.bars.forEach((node) => { node.style.setProperty("--share", 0); node.classList.remove("best"); });
}

function pad(canvas, state, changed) {
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const add = (event) => {
    const stroke = state.strokes.at(-1);
    const [x, y] = point(event);
    const [lastX, lastY] = stroke.at(-1) ?? [Infinity, Infinity];
    if (Math.hypot(x - lastX, y - lastY) >= STEP) stroke.push([x, y]);
  };
  let drawing = false;
  canvas.addEventListener("pointerdown", (event) => {
    drawing = true;
    canvas.setPointerCapture(event.pointerId);
    if (state.truth !== null) state.strokes = [];
    state.strokes.push([]);
    add(event);
    changed();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    (event.getCoalescedEvents?.() ?? []).concat(event).forEach(add);
    changed();
  });
  ["pointerup", "pointercancel"].forEach((end) => canvas.addEventListener(end, () => (drawing = false)));
}

// What was drawn, and small beside it what the networks see.
function paint({ strokes, pixels, truth }) {
  const canvas = byId("pad");
  const context = canvas.getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  byId("pad-hint").hidden = strokes.length > 0 || truth !== null;
  if (truth !== null) paintPixels(context, pixels, canvas.width);
  Object.assign(context, { strokeStyle: "#fff", lineWidth: canvas.width / 13, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    context.beginPath();
    stroke.forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](x * canvas.width, y * canvas.height));
    if (stroke.length === 1) context.lineTo(stroke[0][0] * canvas.width + 0.1, stroke[0][1] * canvas.height);
    context.stroke();
  }
  const seen = byId("seen");
  paintPixels(seen.getContext("2d"), pixels, seen.width);
}

function paintPixels(context, pixels, side) {
  const size = side / SIDE;
  pixels.forEach((ink, i) => {
    const grey = Math.round(ink);
    context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
    context.fillRect((i % SIDE) * size, Math.floor(i / SIDE) * size, size, size);
  });
}

function sayBits(slider) {
  const bits = Number(slider.value);
  const text = bits === STORED ? "weights as stored" : `weights of ${bits} bits`;
  byId("bits-amount").textContent = text;
  slider.setAttribute("aria-valuetext", text);
}

function sampleButton(sample, choose) {
  const pixels = Float32Array.from(decodeBytes(sample.pixels));
  const canvas = element("canvas", { width: SIDE, height: SIDE });
  paintPixels(canvas.getContext("2d"), pixels, SIDE);
  return element("button", { type: "button", "aria-label": `test image ${sample.row}, a ${sample.label}`,
    "data-row": sample.row, on: { click: () => choose(pixels) } }, canvas);
}

function leftOut(reasons) {
  const names = Object.entries(reasons);
  byId("draw-left-out").replaceChildren(...names.map(([stem, reason]) => element("li", {}, `${stem}: ${reason}`)));
  byId("draw-left-out-box").hidden = !names.length;
}
