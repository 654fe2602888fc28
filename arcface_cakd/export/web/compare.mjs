// Two pictures to two aligned crops, these to embeddings by onnxruntime-web, and their cosine.

import * as ort from "./ort.wasm.min.mjs";

const SIDE = 112;
// Where eyes, nose and corners of the mouth are in an aligned crop: the ArcFace template.
const TEMPLATE = [
  [38.2946, 51.6963],
  [73.5318, 51.5014],
  [56.0252, 71.7366],
  [41.5493, 92.3655],
  [70.7299, 92.2041],
];
const NAMES = [
  "the eye on the left",
  "the eye on the right",
  "the tip of the nose",
  "the corner of the mouth on the left",
  "the corner of the mouth on the right",
];
const BLACK = [0, 0, 0];

// The similarity x' = a x - b y + c, y' = b x + a y + d that brings points nearest to others.
function similarity(from, to) {
  const mean = (points, k) => points.reduce((sum, point) => sum + point[k], 0) / points.length;
  const [fx, fy, tx, ty] = [mean(from, 0), mean(from, 1), mean(to, 0), mean(to, 1)];
  let along = 0;
  let across = 0;
  let spread = 0;
  from.forEach(([x, y], k) => {
    const [u, v] = [x - fx, y - fy];
    const [p, q] = [to[k][0] - tx, to[k][1] - ty];
    along += u * p + v * q;
    across += u * q - v * p;
    spread += u * u + v * v;
  });
  const [a, b] = [along / spread, across / spread];
  return { a, b, c: tx - a * fx + b * fy, d: ty - b * fx - a * fy };
}

// The crop that a similarity maps to the template: bilinear, black beyond the border.
function align(picture, landmarks) {
  const { a, b, c, d } = similarity(landmarks, TEMPLATE);
  const scale = a * a + b * b;
  const { data, width, height } = picture;
  const crop = new ImageData(SIDE, SIDE);
  const pixel = (x, y, k) =>
    x < 0 || y < 0 || x >= width || y >= height ? BLACK[k] : data[4 * (y * width + x) + k];
  for (let row = 0; row < SIDE; row += 1) {
    for (let column = 0; column < SIDE; column += 1) {
      const [u, v] = [column - c, row - d];
      const [x, y] = [(a * u + b * v) / scale, (a * v - b * u) / scale];
      const [left, top] = [Math.floor(x), Math.floor(y)];
      const [right, down] = [x - left, y - top];
      const at = 4 * (row * SIDE + column);
      for (let k = 0; k < 3; k += 1) {
        const above = pixel(left, top, k) * (1 - right) + pixel(left + 1, top, k) * right;
        const below = pixel(left, top + 1, k) * (1 - right) + pixel(left + 1, top + 1, k) * right;
        crop.data[at + k] = Math.round(above * (1 - down) + below * down);
      }
      crop.data[at + 3] = 255;
    }
  }
  return crop;
}

// A crop and its mirror image as float32 (2, 3, 112, 112) in [-1, 1].
function blob(crop) {
  const plane = SIDE * SIDE;
  const values = new Float32Array(6 * plane);
  for (let k = 0; k < 3; k += 1) {
    for (let row = 0; row < SIDE; row += 1) {
      for (let column = 0; column < SIDE; column += 1) {
        const value = crop.data[4 * (row * SIDE + column) + k] / 127.5 - 1;
        values[k * plane + row * SIDE + column] = value;
        values[(3 + k) * plane + row * SIDE + (SIDE - 1 - column)] = value;
      }
    }
  }
  return new ort.Tensor("float32", values, [2, 3, SIDE, SIDE]);
}

// The sum of the embeddings of a crop and of its mirror image, as `evaluate` takes it.
async function embed(session, crop) {
  const { data: found, dims } = (await session.run({ data: blob(crop) })).embedding;
  return Float64Array.from({ length: dims[1] }, (_, k) => found[k] + found[dims[1] + k]);
}

function cosine(one, other) {
  const dot = (x, y) => x.reduce((sum, value, k) => sum + value * y[k], 0);
  return dot(one, other) / Math.sqrt(dot(one, one) * dot(other, other));
}

const state = document.querySelector("#state");
const shown = document.querySelector("#similarity");
const crops = [null, null];
let session = null;
let latest = 0;

async function compare() {
  latest += 1;
  const mine = latest;
  shown.value = "-";
  if (session === null) return;
  if (crops.includes(null)) {
    state.textContent = "The model is loaded. Choose two faces.";
    return;
  }
  state.textContent = "Comparing.";
  try {
    const first = await embed(session, crops[0]);
    const second = await embed(session, crops[1]);
    if (mine !== latest) return; // other faces were chosen meanwhile
    shown.value = cosine(first, second).toFixed(4);
    state.textContent = "Compared.";
  } catch (error) {
    state.textContent = `The model does not run here: ${error.message}`;
  }
}

function faceOf(section, which) {
  const [hint, picture, crop] = [".hint", ".picture", ".crop"].map((s) => section.querySelector(s));
  let pixels = null;
  let landmarks = [];

  function settle(aligned) {
    crops[which] = aligned;
    crop.hidden = aligned === null;
    if (aligned !== null) {
      crop.getContext("2d", { willReadFrequently: true }).putImageData(aligned, 0, 0);
    }
    return compare();
  }

  function ask() {
    hint.textContent =
      landmarks.length < NAMES.length
        ? `Click ${NAMES[landmarks.length]}.`
        : "Aligned. Click again to choose other landmarks.";
  }

  section.querySelector("input").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    landmarks = [];
    pixels = null;
    picture.hidden = true;
    hint.textContent = "";
    await settle(null);
    if (!file) return;
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
    } catch {
      hint.textContent = `${file.name} is no picture that this browser reads.`;
      return;
    }
    if (target.files[0] !== file) return;
    [picture.width, picture.height] = [bitmap.width, bitmap.height];
    const context = picture.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
    if (bitmap.width === SIDE && bitmap.height === SIDE) {
      hint.textContent = "A crop, taken as it is.";
      await settle(pixels);
    } else {
      picture.hidden = false;
      ask();
    }
  });

  picture.addEventListener("click", async (event) => {
    const box = picture.getBoundingClientRect();
    const context = picture.getContext("2d");
    if (landmarks.length === NAMES.length) {
      landmarks = [];
      context.putImageData(pixels, 0, 0);
      await settle(null);
    }
    // A click is on a whole pixel of the screen; what is meant is its centre. In the picture,
    // pixels' centres are whole numbers.
    const x = ((Math.floor(event.clientX) + 0.5 - box.left) * picture.width) / box.width - 0.5;
    const y = ((Math.floor(event.clientY) + 0.5 - box.top) * picture.height) / box.height - 0.5;
    landmarks.push([x, y]);
    context.fillStyle = "#0f0";
    const radius = Math.max(2, picture.width / 150);
    context.fillRect(x + 0.5 - radius, y + 0.5 - radius, 2 * radius, 2 * radius);
    ask();
    if (landmarks.length === NAMES.length) await settle(align(pixels, landmarks));
  });
}

document.querySelectorAll("section").forEach(faceOf);

try {
  const said = await (await fetch("about.json")).json();
  const rows = { ...said.about };
  const version = said.onnxruntime_web ? ` ${said.onnxruntime_web}` : "";
  rows.runtime = `onnxruntime-web${version}, (c) Microsoft Corporation, MIT License`;
  for (const [key, value] of Object.entries(rows)) {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = key.replaceAll("_", " ");
    text.textContent = value;
    document.querySelector("#about").append(term, text);
  }
  // More threads need headers that plain servers do not send.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
  session = await ort.InferenceSession.create("recognition.onnx");
  await compare();
} catch (error) {
  state.textContent = `The model cannot be loaded: ${error.message}`;
}
