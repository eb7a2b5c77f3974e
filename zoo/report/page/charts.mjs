// Scales, axes and curves, drawn as SVG at the size that there is, so that text keeps its own.

import { svgElement } from "./dom.mjs";

export const MARGIN = { top: 14, right: 16, bottom: 44, left: 70 };

// A function from values to pixels. range may run backwards.
export function scale([low, high], [from, to], log = false) {
  const bend = log ? Math.log10 : (value) => value;
  const size = bend(high) - bend(low) || 1;
  return (value) => from + ((bend(value) - bend(low)) / size) * (to - from);
}

export function linearTicks([low, high], count = 5) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
  return ticks;
}

export function logTicks([low, high], most = 7) {
  for (const factors of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      ticks.push(...factors.map((factor) => factor * 10 ** power).filter((tick) => tick >= low && tick <= high));
    }
    if (ticks.length <= most || factors.length === 1) return ticks;
  }
  return [];
}

// Lines, ticks and titles of a chart. x and y: {at, ticks, text, title}.
export function axes({ width, height, x, y }) {
  const bottom = height - MARGIN.bottom;
  const plain = (text) => text.replace(/\.0+(?= )/, "");
  const across = x.ticks.map((tick) => [
    svgElement("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: MARGIN.top, y2: bottom }),
    svgElement("text", { x: x.at(tick), y: bottom + 17, "text-anchor": "middle" }, plain(x.text(tick))),
  ]);
  const upwards = y.ticks.map((tick) => [
    svgElement("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y.at(tick), y2: y.at(tick) }),
    svgElement("text", { x: MARGIN.left - 7, y: y.at(tick) + 4, "text-anchor": "end" }, y.text(tick)),
  ]);
  const middle = (MARGIN.top + bottom) / 2;
  return svgElement("g", { class: "axes" }, across.flat(), upwards.flat(),
    svgElement("text", { class: "axis", x: (MARGIN.left + width) / 2, y: height - 6, "text-anchor": "middle" }, x.title),
    svgElement("text", { class: "axis", x: 12, y: middle, "text-anchor": "middle",
      transform: `rotate(-90 12 ${middle})` }, y.title));
}

// series: [{label, points: [[x, y]]}], drawn as lines with their labels above.
export function lineChart({ series, width, height, xTitle, yTitle, yText }) {
  const all = series.flatMap(({ points }) => points);
  const spanX = extent(all.map(([x]) => x));
  const spanY = extent(all.map(([, y]) => y));
  const at = {
    x: scale(spanX, [MARGIN.left, width - MARGIN.right]),
    y: scale(spanY, [height - MARGIN.bottom, MARGIN.top + 16]),
  };
  const lines = series.map(({ points }, i) => svgElement("path", {
    class: `line line-${i}`,
    d: points.map(([x, y], k) => `${k ? "L" : "M"}${at.x(x).toFixed(1)} ${at.y(y).toFixed(1)}`).join(""),
  }));
  const labels = series.map(({ label }, i) =>
    svgElement("text", { class: `label label-${i}`, x: MARGIN.left + 6 + i * 110, y: MARGIN.top + 2 }, `— ${label}`));
  return svgElement("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${yTitle} over ${xTitle}` },
    axes({ width, height,
      x: { at: at.x, ticks: linearTicks(spanX, 6).filter(Number.isInteger), text: String, title: xTitle },
      y: { at: at.y, ticks: linearTicks(spanY, 4), text: yText, title: yTitle } }),
    lines, labels);
}

export function extent(values) {
  return [Math.min(...values), Math.max(...values)];
}
