// Runs networks as zoo/report/page/networks.py writes them down. Values are Float32Array of [C, H, W] or [C].

export function decodeNetwork(plain) {
  const nodes = plain.nodes.map((node) => ({
    ...node,
    weight: node.weight ? decodeWeight(node.weight) : null,
    bias: node.bias ? new Float32Array(decodeBytes(node.bias).buffer) : null,
  }));
  return { ...plain, nodes };
}

export function decodeBytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function decodeWeight({ shape, scales: scaleText, codes: codeText, mask: maskText }) {
  const scales = new Float32Array(decodeBytes(scaleText).buffer);
  const codes = new Int16Array(decodeBytes(codeText).buffer);
  const mask = maskText ? decodeBytes(maskText) : null;
  const values = new Float32Array(shape.reduce((product, side) => product * side, 1));
  const perFilter = values.length / shape[0];
  let next = 0;
  for (let i = 0; i < values.length; i++) {
    const kept = mask === null || (mask[i >> 3] >> (i & 7)) & 1;
    if (kept) values[i] = codes[next++] * scales[Math.floor(i / perFilter)];
  }
  return { shape, values };
}

// The same network with its weights on a uniform grid of 2^bits - 1 levels for each filter, symmetric around zero.
export function quantised(network, bits) {
  const nodes = network.nodes.map((node) =>
    node.weight ? { ...node, weight: { ...node.weight, values: roundedWeights(node.weight, bits) } } : node,
  );
  return { ...network, nodes };
}

function roundedWeights({ shape, values }, bits) {
  const levels = 2 ** (bits - 1) - 1;
  const perFilter = values.length / shape[0];
  const rounded = new Float32Array(values.length);
  for (let start = 0; start < values.length; start += perFilter) {
    let largest = 0;
    for (let i = start; i < start + perFilter; i++) largest = Math.max(largest, Math.abs(values[i]));
    if (largest === 0) continue;
    const scale = largest / levels;
    for (let i = start; i < start + perFilter; i++) rounded[i] = Math.round(values[i] / scale) * scale;
  }
  return rounded;
}

// Weights at so many bits each, and four bytes for every filter's scale and bias: no coding of zeros.
export function bytesAt(network, bits) {
  let bytes = 0;
  for (const { weight, bias } of network.nodes) {
    if (weight) bytes += Math.ceil((weight.values.length * bits) / 8) + 4 * weight.shape[0];
    if (bias) bytes += 4 * bias.length;
  }
  return bytes;
}

// image: Float32Array of the input's shape, normalised as in training -> logits.
export function run(network, image) {
  const values = new Map([[network.input, image]]);
  for (const node of network.nodes) {
    const operator = OPERATORS[node.kind];
    if (!operator) throw new Error(`no operator is called ${node.kind}`);
    const inputs = node.inputs.map((name) => ({ data: values.get(name), shape: network.shapes[name] }));
    const shape = network.shapes[node.output];
    const output = new Float32Array(shape.reduce((product, side) => product * side, 1));
    operator(node, inputs, output, shape);
    if (node.clamp) applyFunction(FUNCTIONS[node.clamp], output, output);
    values.set(node.output, output);
  }
  return values.get(network.output);
}

export function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

const FUNCTIONS = {
  relu: (x) => (x > 0 ? x : 0),
  relu6: (x) => Math.min(Math.max(x, 0), 6),
  tanh: Math.tanh,
};

const OPERATORS = {
  Convolution: convolution,
  Linear: linear,
  MaxPool: maxPool,
  AveragePool: averagePool,
  GlobalAverage: globalAverage,
  Add: (node, [a, b], output) => output.forEach((_, i) => (output[i] = a.data[i] + b.data[i])),
  Concat: concat,
  Flatten: (node, [x], output) => output.set(x.data),
  Subsample: subsample,
  PadChannels: (node, [x], output) => output.set(x.data, node.before * x.shape[1] * x.shape[2]),
  Function: (node, [x], output) => applyFunction(FUNCTIONS[node.name], x.data, output),
};

function applyFunction(act, input, output) {
  for (let i = 0; i < output.length; i++) output[i] = act(input[i]);
}

// Weight by weight over whole rows: a weight that is zero costs nothing, and rows lie together in memory.
function convolution({ weight, bias, stride, padding, groups }, [x], output, [filters, rows, columns]) {
  const [channels, height, width] = x.shape;
  const [, depth, kernelRows, kernelColumns] = weight.shape;
  const filtersPerGroup = filters / groups;
  let place = 0;
  for (let f = 0; f < filters; f++) {
    const map = output.subarray(f * rows * columns, (f + 1) * rows * columns);
    if (bias) map.fill(bias[f]);
    const first = Math.floor(f / filtersPerGroup) * (channels / groups);
    for (let c = first; c < first + depth; c++) {
      for (let ky = 0; ky < kernelRows; ky++) {
        for (let kx = 0; kx < kernelColumns; kx++) {
          const value = weight.values[place++];
          if (value !== 0) {
            addShifted(map, rows, columns, x.data, c * height * width, height, width, value,
              stride, ky - padding[0], kx - padding[1]);
          }
        }
      }
    }
  }
}

// map[y, x] += value * data[y * stride + dy, x * stride + dx], wherever that lies inside.
function addShifted(map, rows, columns, data, start, height, width, value, stride, dy, dx) {
  const [strideY, strideX] = stride;
  const [top, bottom] = inside(rows, strideY, dy, height);
  const [left, right] = inside(columns, strideX, dx, width);
  for (let y = top; y < bottom; y++) {
    let from = start + (y * strideY + dy) * width + left * strideX + dx;
    const end = y * columns + right;
    for (let to = y * columns + left; to < end; to++, from += strideX) map[to] += value * data[from];
  }
}

// The positions of 0 <= i < count for which 0 <= i * stride + shift < size, as [first, last + 1].
function inside(count, stride, shift, size) {
  const first = Math.max(0, Math.ceil(-shift / stride));
  return [first, Math.min(count, Math.floor((size - 1 - shift) / stride) + 1)];
}

function linear({ weight, bias }, [x], output) {
  const size = x.data.length;
  for (let f = 0; f < output.length; f++) {
    let sum = bias ? bias[f] : 0;
    for (let i = 0, place = f * size; i < size; i++) sum += weight.values[place + i] * x.data[i];
    output[f] = sum;
  }
}

// Calls act(place in the output, start of the map, window) for every window, cut at the image's edges.
function eachWindow({ kernel, stride, padding }, [x], [channels, rows, columns], act) {
  const [, height, width] = x.shape;
  let place = 0;
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < rows; y++) {
      const top = y * stride[0] - padding[0];
      for (let column = 0; column < columns; column++) {
        const left = column * stride[1] - padding[1];
        const window = {
          top: Math.max(0, top), bottom: Math.min(height, top + kernel[0]),
          left: Math.max(0, left), right: Math.min(width, left + kernel[1]),
          padded: (Math.min(height + padding[0], top + kernel[0]) - top) *
            (Math.min(width + padding[1], left + kernel[1]) - left),
        };
        act(place++, c * height * width, window);
      }
    }
  }
}

function maxPool(node, inputs, output, shape) {
  const { data, shape: [, , width] } = inputs[0];
  eachWindow(node, inputs, shape, (place, start, { top, bottom, left, right }) => {
    let largest = -Infinity;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) largest = Math.max(largest, data[start + y * width + x]);
    }
    output[place] = largest;
  });
}

function averagePool(node, inputs, output, shape) {
  const { data, shape: [, , width] } = inputs[0];
  eachWindow(node, inputs, shape, (place, start, { top, bottom, left, right, padded }) => {
    let sum = 0;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) sum += data[start + y * width + x];
    }
    output[place] = sum / (node.count_padding ? padded : (bottom - top) * (right - left));
  });
}

function globalAverage(node, [{ data, shape: [channels, height, width] }], output) {
  const size = height * width;
  for (let c = 0; c < channels; c++) {
    let sum = 0;
    for (let i = c * size; i < (c + 1) * size; i++) sum += data[i];
    output[c] = sum / size;
  }
}

function concat(node, inputs, output) {
  let place = 0;
  for (const { data } of inputs) {
    output.set(data, place);
    place += data.length;
  }
}

function subsample({ step }, [{ data, shape: [, height, width] }], output, [channels, rows, columns]) {
  let place = 0;
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < rows; y++) {
      const row = (c * height + y * step[0]) * width;
      for (let x = 0; x < columns; x++) output[place++] = data[row + x * step[1]];
    }
  }
}
