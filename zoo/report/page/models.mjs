// The table of all models: sorted by any column, filtered by name, data set, family, weights and limits.

import { byId, element, fillSelect, scrollBox } from "./dom.mjs";

const SHOWN = ["name", "dataset", "top1", "bytes", "params", "macs", "peak_activation_bytes", "flash_bytes",
  "netscore", "front", "family", "year"];
const FRONT = { title: "front", name: "front", right: false };
const HIGHER_FIRST = new Set(["top1", "correct", "total", "seeds", "top1_mean", "top1_std", "netscore", "year", "front"]);

// Every row of every data set: {values, texts, missing} by column name.
export function allRows(sets) {
  return sets.flatMap((set) => set.rows.map((row, i) => {
    const values = { ...row, front: frontOf(row) };
    const texts = Object.fromEntries(set.columns.map((column, k) => [column.name, set.texts[i][k]]));
    return { values, texts: { ...texts, front: values.front }, missing: row.missing ?? {}, label: texts.name };
  }));
}

// The costs at which no other model is as accurate: M of MACs, P of parameters, F of the file.
function frontOf(row) {
  return [["macs", "M"], ["params", "P"], ["bytes", "F"]]
    .map(([cost, letter]) => (row[`pareto_${cost}`] ? letter : "")).join("");
}

// Missing values come last either way.
export function sortRows(rows, column, descending) {
  const value = (row) => row.values[column];
  const missing = (row) => value(row) === null || value(row) === undefined || value(row) === "";
  const compare = (a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const [x, y] = descending ? [value(b), value(a)] : [value(a), value(b)];
    return typeof x === "string" ? x.localeCompare(y) : x - y;
  };
  return [...rows].sort(compare);
}

// wanted: {text, dataset, family, weights, top1, bytes, macs}; what is empty or NaN asks for nothing.
export function filterRows(rows, wanted) {
  const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter(({ values, texts }) => {
    const all = Object.values(texts).join(" ").toLowerCase();
    const within = (column, limit) => Number.isNaN(limit) || (values[column] !== null && values[column] <= limit);
    return words.every((word) => all.includes(word)) &&
      (!wanted.dataset || values.dataset === wanted.dataset) &&
      (!wanted.family || values.family === wanted.family) &&
      (!wanted.weights || values.bytes !== null) &&
      (Number.isNaN(wanted.top1) || (values.top1 !== null && values.top1 >= wanted.top1)) &&
      within("bytes", wanted.bytes) && within("macs", wanted.macs);
  });
}

export function startModels(data) {
  const rows = allRows(data.sets);
  const columns = columnsOf(data.sets);
  const state = { column: "macs", descending: false };
  const form = byId("filters");
  fillSelect(form.elements.dataset, [["", "all"], ...data.sets.map(({ name }) => [name, name])]);
  const families = [...new Set(rows.map(({ values }) => values.family).filter(Boolean))].sort();
  fillSelect(form.elements.family, [["", "all"], ...families.map((family) => [family, family])]);
  const draw = () => {
    const found = sortRows(filterRows(rows, wantedOf(form)), state.column, state.descending);
    const shown = form.elements.every.checked ? columns : SHOWN.map((name) => columns.find((c) => c.name === name));
    byId("count").textContent = `${found.length} of ${rows.length} rows`;
    byId("models-table").replaceChildren(tableOf(found, shown, state, sortBy));
  };
  const sortBy = (column) => {
    state.descending = state.column === column ? !state.descending : HIGHER_FIRST.has(column);
    state.column = column;
    const left = byId("models-table").firstElementChild.scrollLeft;
    draw();
    byId("models-table").firstElementChild.scrollLeft = left;
    byId("models-table").querySelector(`[data-column="${column}"]`).focus({ preventScroll: true });
  };
  form.addEventListener("input", draw);
  form.addEventListener("reset", () => setTimeout(draw));
  form.addEventListener("submit", (event) => event.preventDefault());
  draw();
  byId("models-notes").replaceChildren(...notesOf(data.sets).map((note) => element("li", {}, note)));
}

function columnsOf(sets) {
  const columns = sets[0].columns.filter(({ name }) => !name.startsWith("pareto_"));
  return [...columns, FRONT];
}

function notesOf(sets) {
  const front = "front: no other model of its data set is as accurate with fewer MACs (M), fewer parameters (P) or a " +
    "smaller file (F)";
  return [...new Set([front, ...sets.flatMap(({ notes }) => notes)])];
}

function wantedOf(form) {
  const number = (name, factor) => (form.elements[name].value === "" ? NaN : Number(form.elements[name].value) * factor);
  return {
    text: form.elements.text.value,
    dataset: form.elements.dataset.value,
    family: form.elements.family.value,
    weights: form.elements.weights.checked,
    top1: number("top1", 0.01),
    bytes: number("bytes", 1e3),
    macs: number("macs", 1e6),
  };
}

function tableOf(rows, columns, state, sortBy) {
  const head = columns.map(({ name, title, right }) => {
    const sorted = name === state.column;
    const arrow = sorted ? (state.descending ? "▼" : "▲") : "";
    const press = element("button", { type: "button", "data-column": name, on: { click: () => sortBy(name) } },
      title, element("span", { class: "arrow", "aria-hidden": "true" }, arrow));
    const order = sorted ? (state.descending ? "descending" : "ascending") : null;
    return element("th", { scope: "col", class: right ? "number" : null, "aria-sort": order }, press);
  });
  const body = rows.map((row) => element("tr", {}, columns.map((column) => cell(row, column))));
  const empty = element("tr", {}, element("td", { colspan: columns.length }, "No model fits; loosen a filter."));
  return scrollBox("all models", element("table", { class: "models" },
    element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows.length ? body : empty)));
}

function cell(row, { name, right }) {
  if (name === "name") {
    const link = element("a", { href: `#card/${row.values.dataset}/${row.label}` }, row.label);
    return element("th", { scope: "row" }, link);
  }
  return element("td", { class: right ? "number" : null, title: row.missing[name] ?? null }, row.texts[name]);
}
