// Elements of the page. Text only ever becomes text nodes, so no name or note can bring markup with it.

const SVG = "http://www.w3.org/2000/svg";
const MARKS = /(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\([^)]+\))/;

export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svgElement(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

export function byId(id) {
  return document.getElementById(id);
}

// The little Markdown that stands in sentences: `code`, **strong**, and links, of which the text is kept.
export function inline(text) {
  return text.split(MARKS).filter(Boolean).map((piece) => {
    if (piece.startsWith("`")) return element("code", {}, piece.slice(1, -1));
    if (piece.startsWith("**")) return element("strong", {}, piece.slice(2, -2));
    return MARKS.test(piece) ? piece.slice(1, piece.indexOf("](")) : piece;
  });
}

// A wide table scrolls within its own box, which the keyboard can reach.
export function scrollBox(label, ...children) {
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, ...children);
}

export function plainTable({ title, columns, rows, notes }) {
  const side = (i) => ({ class: columns[i].right ? "number" : null });
  const head = element("tr", {}, columns.map((column, i) => element("th", { scope: "col", ...side(i) }, column.title)));
  const body = rows.map((row) => element("tr", {}, row.map((text, i) => element("td", side(i), inline(text)))));
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, body));
  if (title) table.prepend(element("caption", {}, title));
  const box = scrollBox(title || "table", table);
  if (!notes.length) return box;
  return element("div", {}, box, element("ul", { class: "notes" }, notes.map((note) => element("li", {}, inline(note)))));
}

export function facts(pairs) {
  return element("dl", {}, pairs.map(([name, value]) => [
    element("dt", {}, name),
    element("dd", {}, value instanceof Node ? value : String(value)),
  ]));
}

export function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

// A bar whose length is a share of what it stands in. The number beside it says the same.
export function bar(share, kind = "") {
  const fill = element("span", { class: `fill ${kind}` });
  fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return element("span", { class: "bar", "aria-hidden": "true" }, fill);
}

export function redrawOnResize(node, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (node.clientWidth === width) return;
    width = node.clientWidth;
    draw();
  }).observe(node);
}
