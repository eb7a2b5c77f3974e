// One number to text, as zoo/report/numbers.py does it.

const STEPS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

export function countText(number) {
  return scaled(number, "");
}

export function sizeText(number) {
  return scaled(number, "B");
}

export function exactText(number) {
  return Math.round(number).toLocaleString("en-GB");
}

export function percentText(share) {
  return `${(100 * share).toFixed(2)} %`;
}

function scaled(number, unit) {
  for (const [step, letter] of STEPS) {
    if (Math.abs(number) / step >= 0.9995) return `${digits(number / step)} ${letter}${unit}`;
  }
  return `${Number.isInteger(number) ? number : digits(number)} ${unit}`.trimEnd();
}

function digits(number) {
  const rounded = Number(number.toPrecision(3));
  if (rounded === 0) return "0";
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(rounded))));
  return rounded.toLocaleString("en-GB", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}
