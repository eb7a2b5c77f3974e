// A card for every row: what it is, how to load it, how it was made, its stages, its training and its confusions.

import { bar, byId, element, facts, fillSelect, plainTable, redrawOnResize, scrollBox } from "./dom.mjs";
import { lineChart } from "./charts.mjs";
import { KIND, MACS, NAME, PARAMS, peakText, SHAPE } from "./layers.mjs";
import { allRows } from "./models.mjs";
import { countText, exactText, percentText } from "./numbers.mjs";

const ADDRESS = /^#card\/([^/]+)\/(.+)$/;
const ROW_FACTS = ["family", "role", "paper", "year", "params", "macs", "peak_activation_bytes", "flash_bytes", "bytes",
  "netscore"];

export function startCards(data) {
  const rows = allRows(data.sets);
  const [sets, models] = [byId("card-set"), byId("card-model")];
  fillSelect(sets, data.sets.map(({ name }) => [name, name]));
  const list = (chosen) => {
    const labels = rows.filter(({ values }) => values.dataset === sets.value).map(({ label }) => label);
    fillSelect(models, labels.map((label) => [label, label]), chosen);
  };
  const draw = () => {
    const row = rows.find(({ values, label }) => values.dataset === sets.value && label === models.value);
    if (row) byId("card").replaceChildren(...cardOf(row, data));
  };
  const follow = () => {
    const [, set, label] = location.hash.match(ADDRESS) ?? [];
    if (!set) return;
    sets.value = decodeURIComponent(set);
    list(decodeURIComponent(label));
    draw();
    byId("cards").scrollIntoView();
    byId("card").focus({ preventScroll: true });
  };
  sets.addEventListener("input", () => { list(models.value); draw(); });
  models.addEventListener("input", draw);
  window.addEventListener("hashchange", follow);
  const first = rows.find(({ values }) => values.bytes !== null) ?? rows[0];
  sets.value = first.values.dataset;
  list(first.label);
  draw();
  follow();
}

function cardOf(row, data) {
  const { dataset, name, tag } = row.values;
  const card = data.cards[stemOf(name, dataset, tag)];
  const set = data.sets.find((one) => one.name === dataset);
  const evidence = card ? data.evidence[card.stem] ?? {} : {};
  return [
    element("h3", {}, row.label, element("small", {}, ` ${dataset}, ${set.image_text}`)),
    element("div", { class: "panels" },
      element("div", { class: "stack" },
        panel("What it is", facts(rowFacts(row, set))),
        panel("Accuracy", card ? facts(card.accuracy) : absent("no weights are stored")),
        card ? panel("File", facts(card.file)) : null),
      element("div", { class: "stack" },
        panel("Use it", ...data.uses[dataset][row.label].map(([what, code]) => codeBlock(what, code))),
        card ? panel("Recipe", facts(card.recipe)) : null),
      stagesPanel(data.costs[dataset][name], row),
      curvePanel(evidence.epochs, card, data.checkout),
      confusionPanel(evidence.confusion, card, set.classes, data.checkout),
      card && data.receipts[card.stem] ? widePanel("Compression, stage by stage", plainTable(data.receipts[card.stem])) : null),
  ];
}

function stemOf(name, dataset, tag) {
  return [name, dataset, tag].filter(Boolean).map((part) => part.replace(/[^A-Za-z0-9_-]/g, "-")).join(".");
}

function rowFacts(row, set) {
  const titles = Object.fromEntries(set.columns.map(({ name, title }) => [name, title]));
  return ROW_FACTS.map((name) => [titles[name],
    row.missing[name] ? `${row.texts[name]} (${row.missing[name]})` : row.texts[name]]);
}

function panel(title, ...children) {
  return element("section", { class: "panel" }, element("h4", {}, title), ...children);
}

function widePanel(title, ...children) {
  return element("section", { class: "panel wide" }, element("h4", {}, title), ...children);
}

function absent(reason) {
  return element("p", { class: "absent" }, `Not here: ${reason}.`);
}

function codeBlock(what, code) {
  return element("figure", {}, element("figcaption", {}, what), element("pre", { tabindex: "0" }, element("code", {}, code)));
}

// Layers whose outputs have the same height and width make a stage.
export function stagesOf(layers) {
  const stages = new Map();
  for (const layer of layers) {
    const size = layer[SHAPE].slice(1).join(" x ") || "vector";
    if (!stages.has(size)) stages.set(size, []);
    stages.get(size).push(layer);
  }
  return [...stages].map(([size, members]) => ({
    size,
    layers: members,
    kinds: counted(members.map((layer) => layer[KIND])),
    channels: [...new Set(members.map((layer) => layer[SHAPE][0]))],
    params: members.reduce((sum, layer) => sum + layer[PARAMS], 0),
    macs: members.reduce((sum, layer) => sum + layer[MACS], 0),
  }));
}

function counted(kinds) {
  const counts = new Map();
  kinds.forEach((kind) => counts.set(kind, (counts.get(kind) ?? 0) + 1));
  return [...counts].map(([kind, count]) => `${count} ${kind}`).join(", ");
}

function stagesPanel(cost, row) {
  if (!cost) return widePanel("Architecture", absent(row.missing.macs ?? "a library's model is not counted layer by layer"));
  const note = row.missing.peak_activation_bytes ? ` These are the layers ${row.missing.peak_activation_bytes}.` : "";
  const stages = stagesOf(cost.layers).map((stage) => element("details", {},
    element("summary", {},
      element("span", { class: "size" }, stage.size),
      element("span", { class: "kinds" }, stage.kinds, element("small", {}, ` ${channelText(stage.channels)}`)),
      element("span", { class: "measure" }, bar(stage.macs / cost.macs), element("span", {}, `${countText(stage.macs)} MACs`)),
      element("span", { class: "number" }, `${countText(stage.params)} params`)),
    layerList(stage.layers)));
  return widePanel("Architecture, stage by stage",
    element("p", {}, `Each stage is what works at one height and width; open it for its layers. ` +
      `Activations take at most ${peakText(cost)}.${note}`), element("div", { class: "stages" }, stages));
}

function channelText(channels) {
  const [least, most] = [Math.min(...channels), Math.max(...channels)];
  return least === most ? `${most} wide` : `${least} to ${most} wide`;
}

function layerList(layers) {
  const columns = ["layer", "kind", "output", "params", "MACs"].map((title, i) => ({ title, right: i > 1 }));
  const rows = layers.map((layer) => [layer[NAME] || "(itself)", layer[KIND], layer[SHAPE].join(" x "),
    exactText(layer[PARAMS]), exactText(layer[MACS])]);
  return plainTable({ title: "", columns, rows, notes: [] });
}

// epochs: [epoch, training loss, held-out loss or null, held-out top-1 or null] each.
function curvePanel(epochs, card, checkout) {
  if (!epochs) return panel("Training curve", absent(whyNot(card, checkout, "the log of its training was not kept")));
  const points = (place) => epochs.filter((epoch) => epoch[place] !== null).map((epoch) => [epoch[0], epoch[place]]);
  const losses = [{ label: "training", points: points(1) }, { label: "held out", points: points(2) }];
  const scores = [{ label: "held out", points: points(3) }];
  const charts = [
    { series: losses.filter(({ points: some }) => some.length), yTitle: "loss, nats", yText: (loss) => loss.toFixed(2) },
    { series: scores.filter(({ points: some }) => some.length), yTitle: "top-1", yText: (share) => `${(100 * share).toFixed(1)} %` },
  ].filter(({ series }) => series.length);
  const box = element("div", { class: "plot" });
  redrawOnResize(box, () => box.replaceChildren(
    ...charts.map((chart) => lineChart({ ...chart, width: box.clientWidth, height: 220, xTitle: "epoch" }))));
  return panel("Training curve", box);
}

function confusionPanel(confusion, card, classes, checkout) {
  if (!confusion) return panel("Confusion", absent(whyNot(card, checkout, "it was not measured")));
  const head = element("tr", {}, element("th", { scope: "col" }, "true \\ said"),
    classes.map((name) => element("th", { scope: "col" }, name)));
  const rows = confusion.map((counts, i) => {
    const total = counts.reduce((sum, count) => sum + count, 0) || 1;
    return element("tr", {}, element("th", { scope: "row" }, classes[i]), counts.map((count, k) => {
      const square = element("td", { class: i === k ? "right" : count ? "wrong" : "none" }, count ? String(count) : "·");
      square.style.setProperty("--heat", i === k ? 1 : Math.min(1, (10 * count) / total));
      return square;
    }));
  });
  const table = element("table", { class: "confusion" }, element("thead", {}, head), element("tbody", {}, rows));
  return panel("Confusion on the test images", scrollBox("confusion", table));
}

function whyNot(card, checkout, reason) {
  if (!card) return "no weights are stored";
  return checkout ? reason : "it is in the repository, and this page was made by an installed package";
}
