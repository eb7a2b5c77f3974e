// Compression and the experiments: tables and plots as the README has them.

import { byId, element, inline, plainTable } from "./dom.mjs";

const LONGEST_TITLE = 40; // letters

export function startStudies(studies, checkout) {
  if (!studies.length) {
    const reason = checkout ? "no results are stored" : "results stand in the repository, and this page was made by an installed package";
    byId("study-list").replaceChildren(element("p", { class: "absent" }, `Not here: ${reason}.`));
    return;
  }
  byId("study-list").replaceChildren(...studies.map(studyOf));
}

function studyOf({ name, lead, parts }) {
  return element("details", { id: `study-${name}` },
    element("summary", {}, titleOf(name, lead, parts)),
    lead ? element("p", { class: "lead" }, inline(lead)) : null,
    parts.map(partOf));
}

// What the sentence before it begins with in bold, else what its table is called if that is short, else its name.
function titleOf(name, lead, parts) {
  const words = name.replaceAll("-", " ");
  const called = parts.find(({ table }) => table?.title)?.table.title ?? "";
  return lead.match(/^\*\*([^*]+)\*\*/)?.[1] ?? (called.length > 0 && called.length <= LONGEST_TITLE ? called :
    words.charAt(0).toUpperCase() + words.slice(1));
}

function partOf(part) {
  if (part.table) return plainTable(part.table);
  if (part.text) return element("p", {}, inline(part.text));
  if (!part.svg) return element("p", { class: "absent" }, `${part.picture}: left out for want of room.`);
  return element("img", { alt: part.picture, loading: "lazy", src: `data:image/svg+xml;base64,${part.svg}` });
}
