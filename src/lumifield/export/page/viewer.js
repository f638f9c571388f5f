"use strict";

const about = JSON.parse(document.getElementById("about").textContent);
const canvas = document.querySelector("canvas");
const BRICK = 8, WIDE = BRICK + 1;
// A byte of nought means nought: this is what stands for it in a texture.
const ZERO = [0, 64, 64, 64, 128, 128, 128, 128, 128, 128, 128, 128, 128];
const CHANNELS = ZERO.length;
const SMOOTH_MS = 40, REST_MS = 180, COARSEST = 0.2;

// ---- vectors, in the world frame: x right, y down, z forward in the camera ----

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const plus = (a, b, s = 1) => a.map((v, i) => v + s * b[i]);
const unit = (a) => a.map((v) => v / Math.hypot(...a));
const axis = (c2w, i) => c2w.map((row) => row[i]);
const fromAxes = (...axes) => [0, 1, 2].map((i) => axes.map((a) => a[i]));

function turned(v, pole, angle) {
  const c = Math.cos(angle), s = Math.sin(angle);
  return plus(plus(v.map((x) => x * c), cross(pole, v), s), pole, dot(pole, v) * (1 - c));
}

// ---- the camera: c2w, and how far ahead the point is about which it turns ----

const start = () => ({ c2w: about.c2w, focal: about.focal, size: about.size, fixed: false, distance: about.distance });
let view = start();

function orbit(right, down) {
  const target = plus(axis(view.c2w, 3), axis(view.c2w, 2), view.distance);
  const steep = Math.acos(Math.max(-1, Math.min(1, -dot(axis(view.c2w, 2), about.up))));
  const margin = 0.02;
  const tilt = Math.min(Math.max(steep - down, Math.min(margin, steep)), Math.max(Math.PI - margin, steep)) - steep;
  const level = axis(view.c2w, 0);
  const move = (v) => turned(turned(v, level, tilt), about.up, -right);
  const axes = [0, 1, 2].map((i) => unit(move(axis(view.c2w, i))));
  view.c2w = fromAxes(...axes, plus(target, axes[2], -view.distance));
}

function pan(right, down) {
  const reach = view.distance;
  const moved = plus(plus(axis(view.c2w, 3), axis(view.c2w, 0), -right * reach), axis(view.c2w, 1), -down * reach);
  view.c2w = fromAxes(axis(view.c2w, 0), axis(view.c2w, 1), axis(view.c2w, 2), moved);
}

function zoom(factor) {
  const closer = view.distance * (1 - factor);
  view.distance *= factor;
  const moved = plus(axis(view.c2w, 3), axis(view.c2w, 2), closer);
  view.c2w = fromAxes(axis(view.c2w, 0), axis(view.c2w, 1), axis(view.c2w, 2), moved);
}

// #c2w=twelve numbers, row by row&focal=f or fx,fy&size=width,height: a link to a view. With a size, the canvas has
// exactly so many pixels and nothing stands before it.
function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const numbers = (key, ...counts) => {
    const list = (given.get(key) || "").split(",").map(Number);
    return given.has(key) && counts.includes(list.length) && list.every(Number.isFinite) ? list : null;
  };
  const c2w = numbers("c2w", 12), focal = numbers("focal", 1, 2), size = numbers("size", 2);
  view = start();
  if (c2w) view.c2w = [0, 1, 2].map((i) => c2w.slice(4 * i, 4 * i + 4));
  if (focal && focal.every((f) => f > 0)) view.focal = [focal[0], focal[focal.length - 1]];
  if (size && size.every((s) => s >= 1 && s <= 8192)) Object.assign(view, { size: size.map(Math.round), fixed: true });
  document.body.classList.toggle("plain", view.fixed);
  canvas.style.width = view.fixed ? `${view.size[0]}px` : "";
  canvas.style.height = view.fixed ? `${view.size[1]}px` : "";
}

function toAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  given.set("c2w", view.c2w.flat().map((v) => +v.toPrecision(7)).join(","));
  history.replaceState(null, "", "#" + given.toString().replaceAll("%2C", ","));
}

// ---- unpacking ----

async function bar(share) {
  document.querySelector("progress").value = share;
  await new Promise((resume) => setTimeout(resume));
}

async function unpacked() {
  const text = document.getElementById("voxels").textContent.trim();
  const packed = [], piece = 1 << 20;
  for (let at = 0; at < text.length; at += piece) {
    packed.push(Uint8Array.from(atob(text.slice(at, at + piece)), (c) => c.charCodeAt(0)));
    await bar(0.4 * at / text.length);
  }
  const count = about.side / BRICK;
  const bytes = new Uint8Array(count ** 3 + CHANNELS * about.bricks * BRICK ** 3);
  const stream = new Blob(packed).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  for (let at = 0, chunk; !(chunk = await stream.read()).done; at += chunk.value.length) {
    bytes.set(chunk.value, at);
    await bar(0.4 + 0.2 * at / bytes.length);
  }
  return bytes;
}

// Where in the atlas each brick lies: [x, y, z, 0], or [0, 0, 0, distance of the nearest matter].
function indexed(away, across) {
  const entries = new Uint8Array(4 * away.length), slots = new Int32Array(away.length).fill(-1);
  let next = 0;
  away.forEach((distance, i) => {
    if (distance > 0) {
      entries[4 * i + 3] = distance;
      return;
    }
    entries.set([next % across, Math.floor(next / across) % across, Math.floor(next / across ** 2), 0], 4 * i);
    slots[i] = next++;
  });
  return { entries, slots };
}

// Where the numbers of a brick and of those after it along x, y and z are (-1: there is no matter).
function neighbors(i, slots, count) {
  const [x, y, z] = [i % count, Math.floor(i / count) % count, Math.floor(i / count ** 2)];
  return [0, 1, 2, 3, 4, 5, 6, 7].map((k) => {
    const [nx, ny, nz] = [x + (k & 1), y + (k >> 1 & 1), z + (k >> 2)];
    return Math.max(nx, ny, nz) < count ? slots[nx + count * (ny + count * nz)] : -1;
  });
}

// One channel of the 9^3 corners of a brick: its own 8^3 and the first ones of the bricks after it.
function fill(source, near, put) {
  for (let z = 0; z < WIDE; z++) for (let y = 0; y < WIDE; y++) for (let x = 0; x < WIDE; x++) {
    const slot = near[x >> 3 | y >> 3 << 1 | z >> 3 << 2];
    if (slot >= 0) put(x, y, z, source[slot * BRICK ** 3 + (z & 7) * 64 + (y & 7) * 8 + (x & 7)]);
  }
}

function texture(gl, number, formats, sizes, data, filter) {
  gl.activeTexture(gl.TEXTURE0 + number);
  gl.bindTexture(gl.TEXTURE_3D, gl.createTexture());
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
    gl.texParameteri(gl.TEXTURE_3D, side, gl.CLAMP_TO_EDGE);
  }
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, filter);
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, filter);
  gl.texImage3D(gl.TEXTURE_3D, 0, formats[0], ...sizes, 0, formats[1], gl.UNSIGNED_BYTE, data);
}

async function upload(gl, bytes) {
  const count = about.side / BRICK, bricks = about.bricks;
  const across = Math.ceil(Math.cbrt(bricks)), layers = Math.ceil(bricks / across ** 2);
  const away = bytes.subarray(0, count ** 3), numbers = bytes.subarray(count ** 3);
  const { entries, slots } = indexed(away, across);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  texture(gl, 0, [gl.RGBA8UI, gl.RGBA_INTEGER], [count, count, count], entries, gl.NEAREST);
  const width = across * WIDE, occupied = [...slots.keys()].filter((i) => slots[i] >= 0);
  // Alpha comes first in the file and last in the texture.
  for (const [k, channels] of [[1, 2, 3, 0], [4, 5, 6], [7, 8, 9], [10, 11, 12]].entries()) {
    const [internal, format] = channels.length === 4 ? [gl.RGBA8, gl.RGBA] : [gl.RGB8, gl.RGB];
    texture(gl, k + 1, [internal, format], [width, width, layers * WIDE], null, gl.LINEAR);
    for (let layer = 0; layer < layers; layer++) {
      const slab = new Uint8Array(width * width * WIDE * channels.length);
      channels.forEach((channel, c) => {
        const source = numbers.subarray(channel * bricks * BRICK ** 3, (channel + 1) * bricks * BRICK ** 3);
        const zero = ZERO[channel];
        for (let i = c; i < slab.length; i += channels.length) slab[i] = zero;
        for (const i of occupied.slice(layer * across ** 2, (layer + 1) * across ** 2)) {
          const left = slots[i] % across * WIDE, top = Math.floor(slots[i] / across) % across * WIDE;
          fill(source, neighbors(i, slots, count), (x, y, z, value) => {
            slab[c + channels.length * (left + x + width * (top + y + width * z))] = value + zero;
          });
        }
      });
      gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, layer * WIDE, width, width, WIDE, format, gl.UNSIGNED_BYTE, slab);
      await bar(0.6 + 0.4 * (k + (layer + 1) / layers) / 4);
    }
  }
}

// ---- drawing ----

const VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0, 1); }`;

function program(gl) {
  const made = gl.createProgram();
  const fragment = document.getElementById("march").textContent.trim();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  gl.useProgram(made);
  return new Proxy({}, { get: (_, name) => gl.getUniformLocation(made, name) });
}

function describe(gl, uniform) {
  ["index", "matter", "slopeX", "slopeY", "slopeZ"].forEach((name, i) => gl.uniform1i(uniform[name], i));
  gl.uniform3fv(uniform["box[0]"], about.box.flat());
  for (const name of ["side", "near", "far", "cone"]) gl.uniform1f(uniform[name], about[name]);
  gl.uniform1f(uniform.step0, about.step);
  gl.uniform1i(uniform.contracted, about.contracted);
  gl.uniform1i(uniform.warped, about.ndc !== null);
  gl.uniform3fv(uniform.background, about.background);
  if (about.ndc) {
    const { focal, size, plane } = about.ndc;
    gl.uniform3f(uniform.ndc, 2 * focal[0] / size[0], 2 * focal[1] / size[1], plane);
  }
}

// The pose in the scene's own frame: world = scale * rotation @ scene + translation.
function toScene(c2w) {
  const { rotation, translation, scale } = about.frame;
  const back = (v) => [0, 1, 2].map((i) => dot(axis(rotation, i), v));
  const position = back(plus(axis(c2w, 3), translation, -1)).map((v) => v / scale);
  return { axes: [0, 1, 2].map((i) => back(axis(c2w, i))), position };
}

// Rng the view with `share` of the pixels along each side; returns how long that took [ms].
function draw(gl, uniform, share) {
  const pixels = view.fixed ? 1 : window.devicePixelRatio;
  const whole = view.fixed ? view.size : [canvas.clientWidth * pixels, canvas.clientHeight * pixels];
  const [width, height] = whole.map((side) => Math.max(1, Math.round(side * (view.fixed ? 1 : share))));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const grown = Math.min(width / view.size[0], height / view.size[1]);
  const { axes, position } = toScene(view.c2w);
  gl.viewport(0, 0, width, height);
  gl.uniformMatrix3fv(uniform.rotation, false, axes.flat());
  gl.uniform3fv(uniform.position, position);
  gl.uniform2f(uniform.focal, view.focal[0] * grown, view.focal[1] * grown);
  gl.uniform2f(uniform.center, width / 2, height / 2);
  gl.uniform1f(uniform.height, height);
  const begun = performance.now();
  gl.drawArrays(gl.TRIANGLES, 0, 3);
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));  // waits until it is drawn
  return performance.now() - begun;
}

function painter(gl, uniform) {
  let share = 1, rest = 0, asked = 0;
  const pace = document.getElementById("pace");
  const paint = (moving) => {
    const took = draw(gl, uniform, moving ? share : 1);
    const drawn = moving ? share : 1;
    // While the view moves, as many pixels as are drawn smoothly; all of them once it rests.
    share = Math.min(1, Math.max(COARSEST, drawn * Math.sqrt(SMOOTH_MS / Math.max(took, 1))));
    pace.hidden = false;
    pace.textContent = `${took.toFixed(0)} ms`;
    document.body.dataset.frame = took.toFixed(2);
  };
  return (moving = false) => {
    clearTimeout(rest);
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(() => paint(moving));
    if (moving) rest = setTimeout(() => { paint(false); toAddress(); }, REST_MS);
  };
}

// ---- mouse, touch and keyboard ----

function pointers(repaint) {
  const down = new Map();
  const middle = () => {
    const all = [...down.values()], n = all.length;
    const [x, y] = [0, 1].map((i) => all.reduce((sum, p) => sum + p[i], 0) / n);
    return { x, y, spread: n > 1 ? Math.hypot(all[0][0] - all[1][0], all[0][1] - all[1][1]) : 0 };
  };
  canvas.addEventListener("pointerdown", (e) => {
    down.set(e.pointerId, [e.clientX, e.clientY]);
    canvas.setPointerCapture(e.pointerId);
    document.getElementById("hint").style.opacity = 0;
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => down.delete(e.pointerId));
  canvas.addEventListener("pointermove", (e) => {
    if (!down.has(e.pointerId)) return;
    const before = middle();
    down.set(e.pointerId, [e.clientX, e.clientY]);
    const after = middle(), side = Math.min(canvas.clientWidth, canvas.clientHeight);
    const right = (after.x - before.x) / side, lower = (after.y - before.y) / side;
    if (down.size > 1 || e.buttons & 2 || e.shiftKey) pan(right, lower);
    else orbit(Math.PI * right, Math.PI * lower);
    if (before.spread > 0 && after.spread > 0) zoom(before.spread / after.spread);
    repaint(true);
  });
  canvas.addEventListener("contextmenu", (e) => e.preventDefault());
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    zoom(Math.exp(Math.max(-100, Math.min(100, e.deltaY)) * 0.0015));
    repaint(true);
  }, { passive: false });
}

function keys(repaint) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  window.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key in ways) (e.shiftKey ? pan : orbit)(...ways[e.key].map((v) => v * (e.shiftKey ? 0.03 : 0.06)));
    else if (e.key === "+" || e.key === "=") zoom(0.93);
    else if (e.key === "-") zoom(1 / 0.93);
    else if (e.key === "r" || e.key === "R") Object.assign(view, { c2w: about.c2w, distance: about.distance });
    else return;
    e.preventDefault();
    repaint(true);
  });
}

function sorry(words) {
  const box = document.getElementById("sorry");
  box.textContent = words;
  box.hidden = false;
  document.getElementById("loading").hidden = true;
  document.body.dataset.state = "sorry";
}

const NO_WEBGL2 = "This scene needs WebGL2, which this browser does not offer or has switched off. A current Chrome, "
  + "Edge, Firefox or Safari has it; hardware acceleration may have to be allowed in its settings.";
const TOO_OLD = "This browser is too old to unpack the scene; a current Chrome, Edge, Firefox or Safari can.";
const GIVEN_UP = "The graphics driver gave the scene up; reload the page to see it again.";

async function main() {
  const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, preserveDrawingBuffer: true });
  if (!gl) return sorry(NO_WEBGL2);
  if (!("DecompressionStream" in window)) return sorry(TOO_OLD);
  canvas.addEventListener("webglcontextlost", () => sorry(GIVEN_UP));
  document.body.style.background = `rgb(${about.background.map((v) => Math.round(v * 255))})`;
  fromAddress();
  await upload(gl, await unpacked());
  const uniform = program(gl);
  describe(gl, uniform);
  const repaint = painter(gl, uniform);
  pointers(repaint);
  keys(repaint);
  window.addEventListener("resize", () => repaint());
  window.addEventListener("hashchange", () => { fromAddress(); repaint(); });
  document.getElementById("loading").hidden = true;
  document.body.dataset.state = "ready";
  repaint();
}

main().catch((error) => sorry(`The scene cannot be shown: ${error.message}`));
