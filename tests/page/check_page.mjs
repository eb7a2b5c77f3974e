// node check_page.mjs BROWSER PAGE [FOLDER]: opens the page from its file and uses every part of it; screenshots go to
// FOLDER. BROWSER is a headless Chromium. Exit status 1 and the reason at the first thing that is not as it should be.

import assert from "node:assert/strict";
import { join } from "node:path";
import { launch, open, screenshot } from "./browser.mjs";

const [, , path, file, folder] = process.argv;
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844, phone: true };
const DIGITS = {
  1: [[[0.5, 0.15], [0.5, 0.85]]],
  7: [[[0.25, 0.2], [0.75, 0.2], [0.45, 0.85]]],
};
const HELPERS = `
  globalThis.all = (pattern) => [...document.querySelectorAll(pattern)];
  globalThis.one = (pattern) => document.querySelector(pattern);
  globalThis.zoo = JSON.parse(one("#data").textContent);
  globalThis.set = (pattern, value) => {
    one(pattern).value = value;
    one(pattern).dispatchEvent(new Event("input", { bubbles: true }));
  };
  globalThis.rows = () => all("#models-table tbody tr");
  globalThis.answers = () => all(".answer").map((row) => row.querySelector(".said").textContent);
  globalThis.settled = () => new Promise((resolve) => {
    const look = () => one("#answers").ariaBusy === "false" ? resolve() : setTimeout(look, 20);
    look();
  });`;

async function checkTable(page) {
  const count = await page.evaluate("rows().length");
  assert.equal(count, await page.evaluate("zoo.sets.flatMap((set) => set.rows).length"), "a row for every model");
  for (const [order, pick] of [["descending", "max"], ["ascending", "min"]]) {
    await page.evaluate(`one('[data-column="top1"]').click()`);
    const [sorted, first, best] = await page.evaluate(`[one("th[aria-sort]").getAttribute("aria-sort"),
      rows()[0].children[2].textContent, Math.${pick}(...zoo.sets.flatMap((set) => set.rows)
        .map((row) => row.top1).filter((top1) => top1 !== null))]`);
    assert.deepEqual([sorted, parseFloat(first)], [order, Number((100 * best).toFixed(2))]);
  }
  await page.evaluate(`set("#filters [name=text]", "RESNET20 \t")`);
  const named = await page.evaluate("rows().map((row) => row.textContent)");
  assert.ok(named.length > 0 && named.length < count, "a search leaves some");
  assert.deepEqual(named.filter((text) => !/resnet20/.test(text)), [], "and only what it names");
  await page.evaluate(`one("#filters").reset(); new Promise((resolve) => setTimeout(resolve, 50))`);
  await page.evaluate(`one("#filters [name=weights]").click()`);
  assert.equal(await page.evaluate("rows().length"), await page.evaluate("Object.keys(zoo.cards).length"), "with weights");
  await page.evaluate(`one("#filters").reset(); new Promise((resolve) => setTimeout(resolve, 50))`);
  assert.equal(await page.evaluate("rows().length"), count, "reset");
}

async function checkBudget(page) {
  const expected = (budget) => page.evaluate(`zoo.sets[0].rows.filter((row) => row.bytes !== null && row.bytes <= ${budget})
    .sort((a, b) => b.top1 - a.top1 || a.bytes - b.bytes)[0]`);
  for (const budget of [64_000, 600_000]) {
    await page.evaluate(`set("#budget", ${Math.log10(budget)})`);
    const best = await expected(budget);
    const [said, lit, fits] = await page.evaluate(`[one("#budget-best strong")?.textContent,
      one("circle.best")?.dataset.label, all("circle.fits, circle.best").length]`);
    assert.equal(said, best.tag ? `${best.name}.${best.tag}` : best.name);
    assert.equal(lit, said);
    assert.equal(fits, await page.evaluate(`zoo.sets[0].rows.filter((row) => row.bytes !== null && row.bytes <= ${budget}).length`));
  }
}

async function draw(page, strokes) {
  await page.evaluate(`one("#clear").click(); one("#pad").scrollIntoView({ block: "center", behavior: "instant" })`);
  const box = await page.evaluate(`one("#pad").getBoundingClientRect().toJSON()`);
  const mouse = (type, [x, y]) => page.send("Input.dispatchMouseEvent",
    { type, x: box.x + x * box.width, y: box.y + y * box.height, button: "left", buttons: 1, clickCount: 1 });
  for (const [start, ...corners] of strokes) {
    await mouse("mousePressed", start);
    let last = start;
    for (const corner of corners) {
      for (let i = 1; i <= 6; i++) await mouse("mouseMoved", last.map((from, axis) => from + ((corner[axis] - from) * i) / 6));
      last = corner;
    }
    await mouse("mouseReleased", last);
  }
  await page.evaluate("settled()");
}

async function checkDrawing(page) {
  const networks = await page.evaluate("zoo.drawing.networks.length");
  for (const [digit, strokes] of Object.entries(DIGITS)) {
    await draw(page, strokes);
    assert.deepEqual(await page.evaluate("answers()"), Array(networks).fill(digit), `a drawn ${digit}`);
  }
  await page.evaluate(`set("#bits", 2); settled()`);
  assert.ok((await page.evaluate(`all(".cost").map((node) => node.textContent)`)).every((text) => text.includes("at 2 bits")));
  await page.evaluate(`set("#bits", 9); settled()`);
  for (const sample of await page.evaluate(`all("#samples button").slice(0, 10).map((_, i) => i)`)) {
    await page.evaluate(`all("#samples button")[${sample}].click(); settled()`);
    const right = (await page.evaluate("answers()")).filter((answer) => answer === String(sample)).length;
    assert.ok(right >= networks - 1, `test image of a ${sample}: ${right} of ${networks} right`);
  }
}

async function checkLayers(page) {
  const wrong = await page.evaluate(`zoo.sets.flatMap(({ name }) => {
    set("#layers-set", name);
    return Object.entries(zoo.costs[name]).filter(([model, cost]) => {
      set("#layers-a", model);
      const column = one("#layers-pair article");
      return column.querySelector("h3").textContent !== model ||
        column.querySelectorAll("tr.peak").length !== (cost.peak_row === null ? 0 : 1);
    }).map(([model]) => model);
  })`);
  assert.deepEqual(wrong, []);
}

async function checkCards(page) {
  const wrong = await page.evaluate(`zoo.sets.flatMap(({ name, texts }) => texts.map(([label]) => label).filter((label) => {
    set("#card-set", name);
    set("#card-model", label);
    return !one("#card h3").textContent.startsWith(label) || !one("#card pre") || one("#card").textContent.includes("[object") ||
      document.documentElement.scrollWidth > innerWidth;
  }))`);
  assert.deepEqual(wrong, []);
  const [dataset, label] = await page.evaluate("[zoo.sets[0].name, zoo.sets[0].texts[1][0]]");
  await page.evaluate(`location.hash = "#card/${dataset}/${label}"; new Promise((resolve) => setTimeout(resolve, 200))`);
  assert.ok((await page.evaluate(`one("#card h3").textContent`)).startsWith(label), "a link to a card");
}

async function checkStudies(page) {
  await page.evaluate(`all("details").forEach((node) => (node.open = true))`);
  const pictures = await page.evaluate(`Promise.all(all("#study-list img").map((image) => {
    image.loading = "eager";
    return image.decode().then(() => image.naturalWidth);
  }))`);
  assert.ok(pictures.every((width) => width > 0), "plots are shown");
}

async function picture(page, name, { width }) {
  await page.evaluate(`all("details").forEach((node) => (node.open = false)); all("#samples button")[7]?.click(); set("#bits", 9)`);
  await page.evaluate("new Promise((resolve) => setTimeout(resolve, 1500))");
  const parts = await page.evaluate(`all("header, main > section").map((part) => {
    const { y, height } = part.getBoundingClientRect();
    return [part.id || "top", y + scrollY, height];
  })`);
  for (const [part, y, height] of parts) {
    await screenshot(page, join(folder, `${name}-${part}.png`), { x: 0, y, width, height: Math.min(height, 2400), scale: 1 });
  }
}

const browser = await launch(path);
try {
  for (const [name, options] of Object.entries({ desktop: DESKTOP, "phone-dark": { ...PHONE, dark: true } })) {
    const page = await open(browser, `file://${file}`, options);
    await page.evaluate(HELPERS);
    for (const check of [checkTable, checkBudget, checkDrawing, checkLayers, checkCards, checkStudies]) {
      await check(page);
      const wide = await page.evaluate("document.documentElement.scrollWidth");
      assert.ok(wide <= options.width, `${name} scrolls sideways after ${check.name}: ${wide} pixels`);
    }
    assert.deepEqual(page.faults(), []);
    assert.deepEqual(page.requests(), [`file://${file}`], "the page asks for nothing else");
    if (folder) await picture(page, name, options);
  }
  for (const [name, options] of folder ? Object.entries({ "desktop-dark": { ...DESKTOP, dark: true }, phone: PHONE }) : []) {
    const page = await open(browser, `file://${file}`, options);
    await page.evaluate(HELPERS);
    await picture(page, name, options);
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  browser.close();
}
