// A drawing to pixels as MNIST's were made: cropped, scaled to a box of 20 x 20, and moved so that the centre of mass
// lies in the middle of 28 x 28 (LeCun et al., 1998). Strokes are kept as points, so a small digit has no thicker lines.

export const SIDE = 28;
const BOX = 20;
const PEN = 2.6; // thickness of a stroke in pixels of the box, about that of MNIST's
const SMALLEST = 0.15; // of the pad: what is smaller than this is not blown up further

// strokes: lists of [x, y], in shares of the pad from 0 to 1 -> Float32Array of 28 x 28, 0 to 255.
export function digitOf(strokes) {
  const points = strokes.flat();
  if (!points.length) return new Float32Array(SIDE * SIDE);
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = (BOX - PEN) / Math.max(right - left, bottom - top, SMALLEST);
  const place = ([x, y]) => [
    (x - (left + right) / 2) * scale + SIDE / 2,
    (y - (top + bottom) / 2) * scale + SIDE / 2,
  ];
  return centred(inked(strokes.map((stroke) => stroke.map(place))));
}

// Moved by whole pixels, with what leaves the edge lost.
export function centred(pixels) {
  let mass = 0;
  let alongX = 0;
  let alongY = 0;
  pixels.forEach((ink, i) => {
    mass += ink;
    alongX += ink * ((i % SIDE) + 0.5);
    alongY += ink * (Math.floor(i / SIDE) + 0.5);
  });
  const moved = new Float32Array(SIDE * SIDE);
  if (mass === 0) return moved;
  const [dx, dy] = [Math.round(SIDE / 2 - alongX / mass), Math.round(SIDE / 2 - alongY / mass)];
  pixels.forEach((ink, i) => {
    const [x, y] = [(i % SIDE) + dx, Math.floor(i / SIDE) + dy];
    if (x >= 0 && x < SIDE && y >= 0 && y < SIDE) moved[y * SIDE + x] = ink;
  });
  return moved;
}

// pixels: 0 to 255 -> what a network takes.
export function normalised(pixels, mean, std) {
  return Float32Array.from(pixels, (ink) => (ink / 255 - mean) / std);
}

// lines: strokes in pixels. How dark a pixel is follows from how far its middle is from the nearest stroke.
function inked(lines) {
  const pixels = new Float32Array(SIDE * SIDE);
  for (let i = 0; i < pixels.length; i++) {
    const middle = [(i % SIDE) + 0.5, Math.floor(i / SIDE) + 0.5];
    let nearest = Infinity;
    for (const line of lines) {
      line.forEach((end, k) => (nearest = Math.min(nearest, distance(middle, line[Math.max(0, k - 1)], end))));
    }
    pixels[i] = Math.round(255 * Math.min(1, Math.max(0, PEN / 2 + 0.5 - nearest)));
  }
  return pixels;
}

function distance([x, y], [x1, y1], [x2, y2]) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const squared = dx * dx + dy * dy;
  const along = squared === 0 ? 0 : Math.min(1, Math.max(0, ((x - x1) * dx + (y - y1) * dy) / squared));
  return Math.hypot(x - x1 - along * dx, y - y1 - along * dy);
}
