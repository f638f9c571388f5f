"use strict";

const metadata = JSON.parse(document.getElementById("metadata").textContent);
const canvas = document.querySelector("canvas");
const BRICK_SIZE = 8, BRICK_CORNERS = BRICK_SIZE + 1;
// Empty space is stored as zero bytes; these offsets turn a stored byte into its texture value.
const TEXTURE_OFFSETS = [0, 64, 64, 64, 128, 128, 128, 128, 128, 128, 128, 128, 128];
const NUM_CHANNELS = TEXTURE_OFFSETS.length;
const TARGET_FRAME_MS = 40, IDLE_MS = 180, MIN_RENDER_SCALE = 0.2;

// ---- vectors in the world frame; camera axes: x right, y down, z forward ----

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const add = (a, b, scale = 1) => a.map((v, i) => v + scale * b[i]);
const normalize = (a) => a.map((v) => v / Math.hypot(...a));
const column = (matrix, i) => matrix.map((row) => row[i]);
const fromColumns = (...columns) => [0, 1, 2].map((i) => columns.map((a) => a[i]));

// Rotates v about a unit axis (Rodrigues).
function rotate(v, axis, angle) {
  const c = Math.cos(angle), s = Math.sin(angle);
  return add(add(v.map((x) => x * c), cross(axis, v), s), axis, dot(axis, v) * (1 - c));
}

// ---- camera: c2w, and the distance to the orbit center in front of it ----

const initialView = () => ({
  c2w: metadata.c2w, focal: metadata.focal, size: metadata.size, isFixedSize: false, distance: metadata.distance,
});
let view = initialView();

function orbit(right, down) {
  const target = add(column(view.c2w, 3), column(view.c2w, 2), view.distance);
  const polar = Math.acos(Math.max(-1, Math.min(1, -dot(column(view.c2w, 2), metadata.up))));
  const margin = 0.02;
  const low = Math.min(margin, polar), high = Math.max(Math.PI - margin, polar);
  const tilt = Math.min(Math.max(polar - down, low), high) - polar;
  const rightAxis = column(view.c2w, 0);
  const turn = (v) => rotate(rotate(v, rightAxis, tilt), metadata.up, -right);
  const axes = [0, 1, 2].map((i) => normalize(turn(column(view.c2w, i))));
  view.c2w = fromColumns(...axes, add(target, axes[2], -view.distance));
}

function setPosition(position) {
  view.c2w = fromColumns(column(view.c2w, 0), column(view.c2w, 1), column(view.c2w, 2), position);
}

function pan(right, down) {
  const horizontal = add(column(view.c2w, 3), column(view.c2w, 0), -right * view.distance);
  setPosition(add(horizontal, column(view.c2w, 1), -down * view.distance));
}

function zoom(factor) {
  const forward = view.distance * (1 - factor);
  view.distance *= factor;
  setPosition(add(column(view.c2w, 3), column(view.c2w, 2), forward));
}

// Link to a view: #c2w=twelve numbers, row by row&focal=f or fx,fy&size=width,height. With a size, the canvas has
// exactly that many pixels and no overlays.
function readUrl() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const numbers = (key, ...counts) => {
    const list = (parameters.get(key) || "").split(",").map(Number);
    return parameters.has(key) && counts.includes(list.length) && list.every(Number.isFinite) ? list : null;
  };
  const c2w = numbers("c2w", 12), focal = numbers("focal", 1, 2), size = numbers("size", 2);
  view = initialView();
  if (c2w) view.c2w = [0, 1, 2].map((i) => c2w.slice(4 * i, 4 * i + 4));
  if (focal && focal.every((f) => f > 0)) view.focal = [focal[0], focal[focal.length - 1]];
  if (size && size.every((s) => s >= 1 && s <= 8192)) {
    Object.assign(view, { size: size.map(Math.round), isFixedSize: true });
  }
  document.body.classList.toggle("fixed-size", view.isFixedSize);
  canvas.style.width = view.isFixedSize ? `${view.size[0]}px` : "";
  canvas.style.height = view.isFixedSize ? `${view.size[1]}px` : "";
}

function writeUrl() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  parameters.set("c2w", view.c2w.flat().map((v) => +v.toPrecision(7)).join(","));
  history.replaceState(null, "", "#" + parameters.toString().replaceAll("%2C", ","));
}

// ---- unpacking ----

async function showProgress(fraction) {
  document.querySelector("progress").value = fraction;
  await new Promise((resume) => setTimeout(resume));
}

async function unpackVoxels() {
  const text = document.getElementById("voxels").textContent.trim();
  const compressed = [], chunkSize = 1 << 20;
  for (let start = 0; start < text.length; start += chunkSize) {
    compressed.push(Uint8Array.from(atob(text.slice(start, start + chunkSize)), (c) => c.charCodeAt(0)));
    await showProgress(0.4 * start / text.length);
  }
  const bricksPerAxis = metadata.resolution / BRICK_SIZE;
  const bytes = new Uint8Array(bricksPerAxis ** 3 + NUM_CHANNELS * metadata.numBricks * BRICK_SIZE ** 3);
  const reader = new Blob(compressed).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  for (let start = 0, chunk; !(chunk = await reader.read()).done; start += chunk.value.length) {
    bytes.set(chunk.value, start);
    await showProgress(0.4 + 0.2 * start / bytes.length);
  }
  return bytes;
}

// Index texture with the atlas position [x, y, z, 0] of each occupied brick, and [0, 0, 0, distance to the nearest
// occupied brick] of each empty one; `slots` numbers the occupied bricks (-1: empty).
function indexBricks(distances, atlasWidth) {
  const entries = new Uint8Array(4 * distances.length), slots = new Int32Array(distances.length).fill(-1);
  let next = 0;
  distances.forEach((distance, i) => {
    if (distance > 0) {
      entries[4 * i + 3] = distance;
      return;
    }
    const row = Math.floor(next / atlasWidth) % atlasWidth, layer = Math.floor(next / atlasWidth ** 2);
    entries.set([next % atlasWidth, row, layer, 0], 4 * i);
    slots[i] = next++;
  });
  return { entries, slots };
}

// Slots of a brick and of the seven bricks that follow it along x, y and z (-1: empty).
function neighborSlots(i, slots, bricksPerAxis) {
  const n = bricksPerAxis, [x, y, z] = [i % n, Math.floor(i / n) % n, Math.floor(i / n ** 2)];
  return [0, 1, 2, 3, 4, 5, 6, 7].map((k) => {
    const [nx, ny, nz] = [x + (k & 1), y + (k >> 1 & 1), z + (k >> 2)];
    return Math.max(nx, ny, nz) < n ? slots[nx + n * (ny + n * nz)] : -1;
  });
}

// Writes one channel of the 9^3 corners of a brick: its own 8^3, and the first ones of the bricks that follow.
function writeBrick(source, neighbors, write) {
  const n = BRICK_CORNERS;
  for (let z = 0; z < n; z++) for (let y = 0; y < n; y++) for (let x = 0; x < n; x++) {
    const slot = neighbors[x >> 3 | y >> 3 << 1 | z >> 3 << 2];
    if (slot >= 0) write(x, y, z, source[slot * BRICK_SIZE ** 3 + (z & 7) * 64 + (y & 7) * 8 + (x & 7)]);
  }
}

function createTexture(gl, unit, formats, size, data, filter) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_3D, gl.createTexture());
  for (const wrap of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
    gl.texParameteri(gl.TEXTURE_3D, wrap, gl.CLAMP_TO_EDGE);
  }
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, filter);
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, filter);
  gl.texImage3D(gl.TEXTURE_3D, 0, formats[0], ...size, 0, formats[1], gl.UNSIGNED_BYTE, data);
}

async function uploadTextures(gl, bytes) {
  const bricksPerAxis = metadata.resolution / BRICK_SIZE, numBricks = metadata.numBricks;
  const atlasWidth = Math.ceil(Math.cbrt(numBricks)), numLayers = Math.ceil(numBricks / atlasWidth ** 2);
  const distances = bytes.subarray(0, bricksPerAxis ** 3), values = bytes.subarray(bricksPerAxis ** 3);
  const { entries, slots } = indexBricks(distances, atlasWidth), channelLength = numBricks * BRICK_SIZE ** 3;
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  const indexSize = [bricksPerAxis, bricksPerAxis, bricksPerAxis];
  createTexture(gl, 0, [gl.RGBA8UI, gl.RGBA_INTEGER], indexSize, entries, gl.NEAREST);
  const width = atlasWidth * BRICK_CORNERS, occupied = [...slots.keys()].filter((i) => slots[i] >= 0);
  // Alpha is the first channel of the file and the last of the texture.
  for (const [k, channels] of [[1, 2, 3, 0], [4, 5, 6], [7, 8, 9], [10, 11, 12]].entries()) {
    const [internal, format] = channels.length === 4 ? [gl.RGBA8, gl.RGBA] : [gl.RGB8, gl.RGB];
    createTexture(gl, k + 1, [internal, format], [width, width, numLayers * BRICK_CORNERS], null, gl.LINEAR);
    for (let layer = 0; layer < numLayers; layer++) {
      const slab = new Uint8Array(width * width * BRICK_CORNERS * channels.length);
      channels.forEach((channel, c) => {
        const source = values.subarray(channel * channelLength, (channel + 1) * channelLength);
        const offset = TEXTURE_OFFSETS[channel];
        for (let i = c; i < slab.length; i += channels.length) slab[i] = offset;
        for (const i of occupied.slice(layer * atlasWidth ** 2, (layer + 1) * atlasWidth ** 2)) {
          const left = slots[i] % atlasWidth * BRICK_CORNERS;
          const top = Math.floor(slots[i] / atlasWidth) % atlasWidth * BRICK_CORNERS;
          writeBrick(source, neighborSlots(i, slots, bricksPerAxis), (x, y, z, value) => {
            slab[c + channels.length * (left + x + width * (top + y + width * z))] = value + offset;
          });
        }
      });
      const z = layer * BRICK_CORNERS;
      gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, z, width, width, BRICK_CORNERS, format, gl.UNSIGNED_BYTE, slab);
      await showProgress(0.6 + 0.4 * (k + (layer + 1) / numLayers) / 4);
    }
  }
}

// ---- rendering ----

const VERTEX_SHADER = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0, 1); }`;

// Compiles the shaders; returns the locations of the uniforms by name.
function compileProgram(gl) {
  const program = gl.createProgram();
  const fragmentShader = document.getElementById("shader").textContent.trim();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, fragmentShader]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  return new Proxy({}, { get: (_, name) => gl.getUniformLocation(program, name) });
}

function setSceneUniforms(gl, uniforms) {
  const samplers = ["brickIndex", "valueAlpha", "derivativeX", "derivativeY", "derivativeZ"];
  samplers.forEach((name, unit) => gl.uniform1i(uniforms[name], unit));
  gl.uniform3fv(uniforms["box[0]"], metadata.box.flat());
  const numbers = ["resolution", "near", "far", "stepSize", "coneAngle"];
  for (const name of numbers) gl.uniform1f(uniforms[name], metadata[name]);
  gl.uniform1i(uniforms.isContracted, metadata.contracted);
  gl.uniform1i(uniforms.isNdc, metadata.ndc !== null);
  gl.uniform3fv(uniforms.background, metadata.background);
  if (metadata.ndc) {
    const { focal, size, plane } = metadata.ndc;
    gl.uniform3f(uniforms.ndc, 2 * focal[0] / size[0], 2 * focal[1] / size[1], plane);
  }
}

// Camera pose in scene coordinates: world = scale * rotation @ scene + translation.
function toScene(c2w) {
  const { rotation, translation, scale } = metadata.frame;
  const invert = (v) => [0, 1, 2].map((i) => dot(column(rotation, i), v));
  const position = invert(add(column(c2w, 3), translation, -1)).map((v) => v / scale);
  return { axes: [0, 1, 2].map((i) => invert(column(c2w, i))), position };
}

// Renders the view at a fraction of the resolution per axis; returns the frame time [ms].
function renderView(gl, uniforms, renderScale) {
  const pixelRatio = view.isFixedSize ? 1 : window.devicePixelRatio;
  const fullSize = view.isFixedSize ? view.size : [canvas.clientWidth * pixelRatio, canvas.clientHeight * pixelRatio];
  const scale = view.isFixedSize ? 1 : renderScale;
  const [width, height] = fullSize.map((length) => Math.max(1, Math.round(length * scale)));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const magnification = Math.min(width / view.size[0], height / view.size[1]);
  const { axes, position } = toScene(view.c2w);
  gl.viewport(0, 0, width, height);
  gl.uniformMatrix3fv(uniforms.rotation, false, axes.flat());
  gl.uniform3fv(uniforms.position, position);
  gl.uniform2f(uniforms.focal, view.focal[0] * magnification, view.focal[1] * magnification);
  gl.uniform2f(uniforms.center, width / 2, height / 2);
  gl.uniform1f(uniforms.height, height);
  const start = performance.now();
  gl.drawArrays(gl.TRIANGLES, 0, 3);
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));  // waits for the GPU
  return performance.now() - start;
}

// Returns a function that schedules a frame. A moving camera is rendered at a resolution that keeps the frame rate,
// and at full resolution once it rests.
function createScheduler(gl, uniforms) {
  let movingScale = 1, idleTimer = 0, request = 0;
  const frameTime = document.getElementById("frame-time");
  const renderFrame = (isMoving) => {
    const scale = isMoving ? movingScale : 1;
    const milliseconds = renderView(gl, uniforms, scale);
    const targetScale = scale * Math.sqrt(TARGET_FRAME_MS / Math.max(milliseconds, 1));
    movingScale = Math.min(1, Math.max(MIN_RENDER_SCALE, targetScale));
    frameTime.hidden = false;
    frameTime.textContent = `${milliseconds.toFixed(0)} ms`;
    document.body.dataset.frame = milliseconds.toFixed(2);
  };
  return (isMoving = false) => {
    clearTimeout(idleTimer);
    cancelAnimationFrame(request);
    request = requestAnimationFrame(() => renderFrame(isMoving));
    if (isMoving) idleTimer = setTimeout(() => { renderFrame(false); writeUrl(); }, IDLE_MS);
  };
}

// ---- mouse, touch and keyboard ----

function listenToPointers(scheduleFrame) {
  const pointers = new Map();
  // Centroid of the pointers and distance between the first two.
  const gesture = () => {
    const all = [...pointers.values()], n = all.length;
    const [x, y] = [0, 1].map((i) => all.reduce((sum, p) => sum + p[i], 0) / n);
    return { x, y, spread: n > 1 ? Math.hypot(all[0][0] - all[1][0], all[0][1] - all[1][1]) : 0 };
  };
  canvas.addEventListener("pointerdown", (e) => {
    pointers.set(e.pointerId, [e.clientX, e.clientY]);
    canvas.setPointerCapture(e.pointerId);
    document.getElementById("hint").style.opacity = 0;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (e) => pointers.delete(e.pointerId));
  }
  canvas.addEventListener("pointermove", (e) => {
    if (!pointers.has(e.pointerId)) return;
    const before = gesture();
    pointers.set(e.pointerId, [e.clientX, e.clientY]);
    const after = gesture(), size = Math.min(canvas.clientWidth, canvas.clientHeight);
    const right = (after.x - before.x) / size, down = (after.y - before.y) / size;
    if (pointers.size > 1 || e.buttons & 2 || e.shiftKey) pan(right, down);
    else orbit(Math.PI * right, Math.PI * down);
    if (before.spread > 0 && after.spread > 0) zoom(before.spread / after.spread);
    scheduleFrame(true);
  });
  canvas.addEventListener("contextmenu", (e) => e.preventDefault());
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    zoom(Math.exp(Math.max(-100, Math.min(100, e.deltaY)) * 0.0015));
    scheduleFrame(true);
  }, { passive: false });
}

function listenToKeys(scheduleFrame) {
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  window.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key in directions) {
      const step = e.shiftKey ? 0.03 : 0.06;
      (e.shiftKey ? pan : orbit)(...directions[e.key].map((v) => v * step));
    } else if (e.key === "+" || e.key === "=") zoom(0.93);
    else if (e.key === "-") zoom(1 / 0.93);
    else if (e.key === "r" || e.key === "R") Object.assign(view, { c2w: metadata.c2w, distance: metadata.distance });
    else return;
    e.preventDefault();
    scheduleFrame(true);
  });
}

function showError(message) {
  const box = document.getElementById("error");
  box.textContent = message;
  box.hidden = false;
  document.getElementById("loading").hidden = true;
  document.body.dataset.state = "error";
}

const NO_WEBGL2 = "This page needs WebGL2, which is not available or disabled in this browser. Use a current Chrome, "
  + "Edge, Firefox or Safari, and enable hardware acceleration in its settings.";
const NO_DECOMPRESSION = "This browser is too old to unpack the scene. Use a current Chrome, Edge, Firefox or Safari.";
const CONTEXT_LOST = "The graphics driver dropped the scene. Reload the page.";

async function main() {
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, preserveDrawingBuffer: true });
  if (!gl) return showError(NO_WEBGL2);
  if (!("DecompressionStream" in window)) return showError(NO_DECOMPRESSION);
  canvas.addEventListener("webglcontextlost", () => showError(CONTEXT_LOST));
  document.body.style.background = `rgb(${metadata.background.map((v) => Math.round(v * 255))})`;
  readUrl();
  await uploadTextures(gl, await unpackVoxels());
  const uniforms = compileProgram(gl);
  setSceneUniforms(gl, uniforms);
  const scheduleFrame = createScheduler(gl, uniforms);
  listenToPointers(scheduleFrame);
  listenToKeys(scheduleFrame);
  window.addEventListener("resize", () => scheduleFrame());
  window.addEventListener("hashchange", () => { readUrl(); scheduleFrame(); });
  document.getElementById("loading").hidden = true;
  document.body.dataset.state = "ready";
  scheduleFrame();
}

main().catch((error) => showError(`The scene cannot be rendered: ${error.message}`));
