// Accuracy over a cost, and a budget: what fits lights up, and the most accurate of it is named.

import { axes, extent, linearTicks, logTicks, MARGIN, scale } from "./charts.mjs";
import { byId, element, fillSelect, redrawOnResize, svgElement } from "./dom.mjs";
import { allRows } from "./models.mjs";
import { countText, percentText, sizeText } from "./numbers.mjs";

const COSTS = {
  bytes: { title: "stored file", text: sizeText, first: 64_000 },
  macs: { title: "MACs of one image", text: countText, first: 10_000_000 },
  params: { title: "parameters", text: countText, first: 300_000 },
};
const LETTER = 6.4; // pixels that a letter of a label takes, about
const CLEARANCE = 15;

// The rows within a budget, best first: the most accurate, then the cheapest.
export function survivors(rows, cost, budget) {
  return rows.filter(({ values }) => values[cost] <= budget)
    .sort((a, b) => b.values.top1 - a.values.top1 || a.values[cost] - b.values[cost]);
}

export function startPareto(data) {
  const rows = allRows(data.sets);
  const [sets, costs, slider] = [byId("budget-set"), byId("budget-cost"), byId("budget")];
  fillSelect(sets, data.sets.map(({ name }) => [name, name]));
  fillSelect(costs, Object.entries(COSTS).map(([name, { title }]) => [name, title]));
  const chosen = () => {
    const scored = rows.filter(({ values }) => values.dataset === sets.value && values.top1 !== null);
    return { rows: scored, cost: costs.value, all: rows.filter(({ values }) => values.dataset === sets.value).length };
  };
  const draw = () => show(chosen(), 10 ** Number(slider.value), slider);
  const begin = () => {
    const { rows: scored, cost } = chosen();
    const [low, high] = scored.length ? extent(scored.map(({ values }) => values[cost])) : [1, 10];
    const first = Math.log10(COSTS[cost].first);
    const step = Number(slider.step);
    slider.min = first - step * Math.ceil((first - Math.log10(low) + 0.15) / step);
    slider.max = Math.log10(high) + 0.1;
    slider.value = first;
    draw();
  };
  sets.addEventListener("input", begin);
  costs.addEventListener("input", begin);
  slider.addEventListener("input", draw);
  begin();
  redrawOnResize(byId("budget-plot"), draw);
}

function show({ rows, cost, all }, budget, slider) {
  const { text, title } = COSTS[cost];
  const fitting = survivors(rows, cost, budget);
  const amount = `${text(budget)}${cost === "bytes" ? "" : ` ${cost === "macs" ? "MACs" : "parameters"}`}`;
  byId("budget-amount").textContent = `at most ${amount}`;
  slider.setAttribute("aria-valuetext", `at most ${amount}`);
  byId("budget-best").replaceChildren(...verdict(fitting, rows, cost, amount));
  const left = all - rows.length;
  byId("budget-left").textContent = left ? `${left} rows without stored weights have no accuracy and are not drawn.` : "";
  const draw = { rows, cost, budget, fitting, text, title };
  byId("budget-plot").replaceChildren(rows.length ? plot(draw, byId("budget-plot").clientWidth || 600) : "");
}

function verdict(fitting, rows, cost, amount) {
  if (!rows.length) return ["No weights are stored for this data set."];
  if (!fitting.length) return [`None of ${rows.length} stored models fits in ${amount}.`];
  const [best] = fitting;
  const others = fitting.slice(1).map(({ label }) => label).join(", ");
  return [
    element("strong", {}, best.label),
    ` is the most accurate of ${fitting.length} of ${rows.length} that fit: `,
    `${percentText(best.values.top1)}, ${COSTS[cost].text(best.values[cost])}.`,
    element("span", { class: "others" }, others ? ` Also: ${others}.` : ""),
  ];
}

function plot({ rows, cost, budget, fitting, text, title }, width) {
  const height = Math.round(Math.min(440, Math.max(280, width * 0.55)));
  const [low, high] = extent(rows.map(({ values }) => values[cost]));
  const spanX = [low / 1.4, high * 1.4];
  const [worst, best] = extent(rows.map(({ values }) => values.top1));
  const room = (best - worst || 0.01) * 0.08;
  const spanY = [worst - room, Math.min(1, best + room)];
  const at = {
    x: scale(spanX, [MARGIN.left, width - MARGIN.right], true),
    y: scale(spanY, [height - MARGIN.bottom, MARGIN.top]),
  };
  const places = new Map(rows.map((row) => [row, [at.x(row.values[cost]), at.y(row.values.top1)]]));
  const edge = Math.min(width - MARGIN.right, Math.max(MARGIN.left, at.x(budget)));
  const ticks = linearTicks(spanY, 5);
  const decimals = ticks[1] - ticks[0] < 0.01 ? 1 : 0;
  return svgElement("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `top-1 over ${title}; the sentence above names the best within the budget` },
    svgElement("rect", { class: "affordable", x: MARGIN.left, y: MARGIN.top, width: edge - MARGIN.left,
      height: height - MARGIN.bottom - MARGIN.top }),
    axes({ width, height,
      x: { at: at.x, ticks: logTicks(spanX, width < 500 ? 4 : 7), text, title },
      y: { at: at.y, ticks, text: (tick) => `${(100 * tick).toFixed(decimals)} %`, title: "top-1" } }),
    svgElement("path", { class: "front", d: frontPath(rows, cost, places) }),
    svgElement("line", { class: "limit", x1: edge, x2: edge, y1: MARGIN.top, y2: height - MARGIN.bottom }),
    rows.map((row) => mark(row, places.get(row), fitting, `${row.label}: ${percentText(row.values.top1)}, ${text(row.values[cost])}`)),
    labels(rows, cost, places, fitting, width));
}

function mark(row, [x, y], fitting, said) {
  const kind = row === fitting[0] ? "best" : fitting.includes(row) ? "fits" : "out";
  return svgElement("circle", { class: kind, cx: x, cy: y, r: kind === "best" ? 8 : 5, "data-label": row.label },
    svgElement("title", {}, said));
}

// A staircase: between two models of the front there is none that is better than the one on its left.
function frontPath(rows, cost, places) {
  const front = rows.filter(({ values }) => values[`pareto_${cost}`]).sort((a, b) => a.values[cost] - b.values[cost]);
  return front.map((row, i) => {
    const [x, y] = places.get(row);
    return i ? `H${x.toFixed(1)}V${y.toFixed(1)}` : `M${x.toFixed(1)} ${y.toFixed(1)}`;
  }).join("");
}

// The best first, then the front, then the others, each where it covers no other label and no mark, or not at all.
function labels(rows, cost, places, fitting, width) {
  const weight = (row) => (row === fitting[0] ? 2 : row.values[`pareto_${cost}`] ? 1 : 0);
  const taken = [...places.values()].map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
  const texts = [];
  for (const row of [...rows].sort((a, b) => weight(b) - weight(a))) {
    const [x, y] = places.get(row);
    const size = row.label.length * LETTER;
    const spots = [[x + 10, y + 4], [x - 10 - size, y + 4], [x - size / 2, y - 12], [x - size / 2, y + 20]];
    const boxOf = ([left, base]) => [left, base - 10, left + size, base + CLEARANCE - 12];
    const free = spots.find((spot) => {
      const box = boxOf(spot);
      return box[0] > MARGIN.left && box[2] < width - 2 && !taken.some((other) => overlaps(box, other));
    });
    if (!free) continue;
    taken.push(boxOf(free));
    const kind = row === fitting[0] ? "best" : fitting.includes(row) ? "fits" : "out";
    texts.push(svgElement("text", { class: `name ${kind}`, x: free[0], y: free[1] }, row.label));
  }
  return texts;
}

function overlaps([left, top, right, bottom], [l, t, r, b]) {
  return left < r && l < right && top < b && t < bottom;
}
