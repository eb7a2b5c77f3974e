// What any two networks cost layer by layer, on one scale, with the layer where memory peaks.

import { bar, byId, element, facts, fillSelect, scrollBox } from "./dom.mjs";
import { countText, exactText, percentText, sizeText } from "./numbers.mjs";

export const [NAME, KIND, SHAPE, PARAMS, MACS, ACTIVATIONS] = [0, 1, 2, 3, 4, 5]; // places in a layer's list
const MEASURES = [[MACS, "MACs"], [PARAMS, "parameters"], [ACTIVATIONS, "activations"]];
const FIRST = ["mobilenetv1_025", "resnet20"];

export function startLayers(data) {
  const [sets, measure] = [byId("layers-set"), byId("layers-measure")];
  const sides = [byId("layers-a"), byId("layers-b")];
  fillSelect(sets, data.sets.map(({ name }) => [name, name]));
  fillSelect(measure, MEASURES.map(([place, title]) => [String(place), title]));
  const begin = () => {
    const names = Object.keys(data.costs[sets.value]);
    sides.forEach((side, i) => {
      const before = names.includes(side.value) ? side.value : FIRST[i];
      fillSelect(side, names.map((name) => [name, name]), names.includes(before) ? before : names[i % names.length]);
    });
    draw();
  };
  const draw = () => {
    const pair = sides.map((side) => [side.value, data.costs[sets.value][side.value]]).filter(([, cost]) => cost);
    const place = Number(measure.value);
    const largest = Math.max(1, ...pair.flatMap(([, cost]) => cost.layers.map((layer) => layer[place])));
    byId("layers-pair").replaceChildren(...pair.map(([name, cost]) => column(name, cost, place, largest)));
  };
  sets.addEventListener("input", begin);
  [measure, ...sides].forEach((select) => select.addEventListener("input", draw));
  begin();
}

function column(name, cost, place, largest) {
  return element("article", { class: "column" }, element("h3", {}, name), facts([
    ["parameters", exactText(cost.params_used)],
    ["MACs", exactText(cost.macs)],
    ["memory peaks", peakText(cost)],
    ["as int8", `${sizeText(cost.peak_activation_bytes_int8)} of activations, ${sizeText(cost.flash_bytes)} of flash`],
  ]), layerTable(name, cost, place, largest));
}

export function peakText(cost) {
  return `${sizeText(cost.peak_activation_bytes)}, in ${cost.peak_layer ? `layer ${cost.peak_layer}` : "the network itself"}`;
}

function layerTable(name, cost, place, largest) {
  const total = cost.layers.reduce((sum, layer) => sum + layer[place], 0) || 1;
  const shown = cost.layers.map((layer, i) => [layer, i]).filter(([layer, i]) => layer[place] || i === cost.peak_row);
  const hidden = cost.layers.length - shown.length;
  const rows = shown.map(([layer, i]) => {
    const peak = i === cost.peak_row;
    return element("tr", { class: peak ? "peak" : null },
      element("th", { scope: "row" }, breakable(layer[NAME] || "(itself)"),
        element("small", {}, `${layer[KIND]}, ${layer[SHAPE].join(" x ")}`),
        peak ? element("small", { class: "flag" }, peakFlag(cost, layer)) : null),
      element("td", { class: "measure" }, bar(layer[place] / largest, peak ? "warm" : ""),
        element("span", { title: `${exactText(layer[place])}, ${percentText(layer[place] / total)} of all` },
          countText(layer[place]))));
  });
  const title = MEASURES.find(([known]) => known === place)[1];
  const table = scrollBox(`layers of ${name}`, element("table", { class: "layers" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "layer, output"),
      element("th", { scope: "col" }, title))),
    element("tbody", {}, rows)));
  return [table, hidden ? element("p", { class: "notes" }, `${hidden} layers without ${title} are not listed.`) : null];
}

function peakFlag(cost, layer) {
  const size = sizeText(cost.peak_activation_bytes);
  return cost.peak_layer === layer[NAME] ? `memory peaks here: ${size}` : `memory peaks next, in ${cost.peak_layer}: ${size}`;
}

// A dotted name may wrap after its dots.
function breakable(name) {
  return name.split(".").flatMap((part, i) => (i ? [".", element("wbr"), part] : [part]));
}
