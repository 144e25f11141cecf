// The page: what is shown, and what keys and mouse do to it.

import { json, plane } from "./api.js";
import { colourOf, PlaneBox } from "./plane.js";
import { Sheet } from "./sheet.js";

const PAGE = 200;
const PRESETS = {
  CT: { brain: [40, 80], "soft tissue": [50, 400], lung: [-600, 1500], bone: [400, 1800] },
};
const $ = (id) => document.getElementById(id);

const state = {
  ids: [], total: 0, subject: null, volume: null, cursor: [0, 0, 0], t: 0,
  low: 0, high: 1, automatic: true, overlay: null, labelsOn: true, tilesOn: false, tiles: null,
  crosshair: true, active: "axial", asked: 0, askedVolume: 0, askedTiles: 0, began: 0,
};
let boxes = [];
let collections = [];
const sheet = new Sheet({
  open: showSubject, presets: PRESETS.CT,
  listed: () => ({ text: $("find").value, filter: $("filter").value }),
});

// Subjects

async function listSubjects(offset = 0) {
  const asked = ++state.asked;
  try {
    const text = $("find").value;
    const page = await json("subjects", { text, filter: $("filter").value, offset, limit: PAGE });
    if (asked !== state.asked) return;
    $("problem").textContent = "";
    state.total = page.total;
    state.ids = offset ? [...state.ids, ...page.ids] : page.ids;
    const items = page.ids.map((id) => {
      const item = document.createElement("li");
      item.textContent = item.title = id;
      item.dataset.id = id;
      item.setAttribute("aria-selected", String(id === state.subject));
      return item;
    });
    if (offset) $("list").append(...items);
    else $("list").replaceChildren(...items);
    $("more").hidden = state.ids.length >= page.total;
    $("more").textContent = `${page.total - state.ids.length} more`;
  } catch (error) {
    $("problem").textContent = error.message;
  }
}

async function showSubject(id) {
  const subject = await json("subject", { id });
  const kind = state.volume?.collection;
  state.subject = id;
  for (const item of $("list").children) {
    item.setAttribute("aria-selected", String(item.dataset.id === id));
    if (item.dataset.id === id) item.scrollIntoView({ block: "nearest" });
  }
  fillRows($("subjectrow"), { subject: id, ...subject.row, obs_subject_id: undefined });
  $("volumes").replaceChildren(
    ...subject.volumes.map(({ collection, obs_id }) => {
      const button = document.createElement("button");
      button.type = "button";
      const repeated = subject.volumes.filter((v) => v.collection === collection).length > 1;
      button.textContent = repeated ? obs_id : collection;
      button.title = obs_id;
      button.dataset.collection = collection;
      button.dataset.volume = obs_id;
      button.addEventListener("click", () => showVolume(collection, obs_id));
      return button;
    }),
  );
  const first = subject.volumes.find((v) => v.collection === kind) ?? subject.volumes[0];
  if (first) await showVolume(first.collection, first.obs_id);
}

function fillRows(list, values) {
  const items = Object.entries(values)
    .filter(([, value]) => value !== undefined && value !== null && value !== "")
    .flatMap(([name, value]) => {
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      text.textContent = typeof value === "number" ? String(+value.toPrecision(6)) : String(value);
      return [term, text];
    });
  list.replaceChildren(...items);
}

// Volumes

async function showVolume(collection, obsId) {
  const began = performance.now();
  const asked = ++state.askedVolume;
  const before = state.volume;
  const volume = await json("volume", { collection, volume: obsId });
  if (asked !== state.askedVolume) return;
  const same = before && before.shape.join() === volume.shape.join();
  const sameKind = before?.collection === collection;
  state.volume = volume;
  if (!same) state.cursor = volume.shape.slice(0, 3).map((n) => n >> 1);
  state.t = Math.min(state.t, (volume.shape[3] ?? 1) - 1);
  state.tiles = null;
  // All planes are on their way while the panel is filled.
  for (const view of volume.planes) boxes.find((b) => b.view.name === view.name).use(view, volume.shape);
  for (const button of $("volumes").children) {
    button.setAttribute("aria-pressed", String(button.dataset.volume === obsId && button.dataset.collection === collection));
  }
  for (const box of boxes) currentPlane(box, volume);
  fillVolumePanel(volume);
  chooseOverlay(volume);
  if (!same || !sameKind) state.automatic = true;
  if (state.automatic) await windowFromPlanes();
  state.began = began;
  await draw();
  if (asked !== state.askedVolume) return;
  document.body.dataset.volume = obsId;
  $("status").textContent = `${obsId}: first plane after ${document.body.dataset.firstMs} ms, all and labels after ${(performance.now() - began).toFixed(0)} ms`;
  document.body.dataset.ready = String(asked);
}

function fillVolumePanel(volume) {
  const { tiling } = volume;
  const shown = {
    shape: volume.shape.join("×"), type: volume.dtype,
    spacing: `${volume.spacing.map((s) => +s.toFixed(3)).join("×")} mm`, axes: volume.axcodes,
    ...(tiling && {
      tiles: `${tiling.n_tiles} of ${tiling.extents.join("×")}`, "one value": tiling.n_constant,
      stored: bytes(tiling.compressed_bytes), filters: tiling.filters.join(" + ") || "none",
    }),
  };
  const hidden = new Set(["obs_subject_id", "axcodes", "voxel_spacing", "dimensions"]);
  const rest = Object.entries(volume.row).filter(
    ([name]) => !hidden.has(name) && !/^(dim|spacing)_.$/.test(name),
  );
  fillRows($("volumerow"), { ...shown, ...Object.fromEntries(rest) });
  const times = volume.shape[3] ?? 1;
  $("timebox").hidden = times < 2;
  $("time").max = times - 1;
  $("time").value = state.t;
  const presets = { auto: null, ...(PRESETS[volume.shows] ?? {}) };
  $("presets").replaceChildren(
    ...Object.entries(presets).map(([name, values]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => (values ? setWindow(...values) : resetWindow()));
      return button;
    }),
  );
}

function chooseOverlay(volume) {
  const kept = state.overlay?.collection;
  const options = [new Option("none", "")].concat(
    volume.overlays.map((o, i) => new Option(`${o.collection}: ${o.obs_id}`, String(i))),
  );
  $("overlay").replaceChildren(...options);
  const again = volume.overlays.findIndex((o) => o.collection === kept);
  const at = again >= 0 ? again : volume.overlays.length && kept === undefined ? 0 : -1;
  state.overlay = at >= 0 ? volume.overlays[at] : kept === undefined ? null : state.overlay && { collection: kept, obs_id: null };
  $("overlay").value = at >= 0 ? String(at) : "";
}

// Window

async function windowFromPlanes() {
  const samples = [];
  const { volume } = state;
  for (const { data } of await Promise.all(boxes.map((box) => currentPlane(box, volume)))) {
    const step = Math.max(1, Math.floor(data.length / 20000));
    for (let i = 0; i < data.length; i += step) if (Number.isFinite(data[i])) samples.push(data[i]);
  }
  samples.sort((a, b) => a - b);
  const inside = samples.length && samples[0] === 0 ? samples.filter((v) => v > 0) : samples;
  const used = inside.length > 50 ? inside : samples;
  const at = (share) => used[Math.round(share * (used.length - 1))] ?? 0;
  const low = used === samples ? at(0.01) : samples[0];
  const high = at(0.995);
  [state.low, state.high] = high > low ? [low, high] : [low, low + 1];
  showWindow();
}

function showWindow() {
  $("centre").value = +((state.low + state.high) / 2).toPrecision(6);
  $("width").value = +(state.high - state.low).toPrecision(6);
  document.body.dataset.low = state.low;
  document.body.dataset.high = state.high;
}

function setWindow(centre, width) {
  if (!Number.isFinite(centre) || !(width > 0)) return;
  state.automatic = false;
  [state.low, state.high] = [centre - width / 2, centre + width / 2];
  showWindow();
  draw();
}

async function resetWindow() {
  state.automatic = true;
  await windowFromPlanes();
  await draw();
}

// Drawing: the newest wish wins; a plane that arrives late is not shown.

function currentPlane(box, volume) {
  const times = volume.shape?.[3] ?? 1;
  return plane(volume, box.view.axis, state.cursor[box.view.axis], Math.min(state.t, times - 1));
}

async function draw() {
  const { volume } = state;
  if (!volume) return;
  const overlay = state.labelsOn && state.overlay?.obs_id ? state.overlay : null;
  const began = performance.now();
  const seen = new Set();
  await Promise.all(
    boxes.map(async (box) => {
      const index = state.cursor[box.view.axis];
      const wish = (box.wish = (box.wish ?? 0) + 1);
      const late = () => wish !== box.wish || volume !== state.volume;
      const coming = overlay ? plane({ ...overlay, labels: 1 }, box.view.axis, index, 0) : null;
      const voxels = await currentPlane(box, volume);
      if (late()) return;
      box.paint(voxels, state.low, state.high);
      const tilt = box.view.tilt < 0.5 ? "" : `  oblique ${box.view.tilt.toFixed(0)}°`;
      box.title.textContent = `${box.view.name}  ${index + 1} / ${volume.shape[box.view.axis]}${tilt}`;
      box.element.classList.toggle("active", box.view.name === state.active);
      box.voxels = voxels;
      if (state.began) {
        document.body.dataset.firstMs = (performance.now() - state.began).toFixed(0);
        state.began = 0;
      }
      const labels = await coming;
      if (late()) return;
      box.labelled = labels;
      for (const value of box.paintLabels(labels, $("opacity").value / 100)) seen.add(value);
      box.element.dataset.index = index;
    }),
  );
  drawMarks();
  showVoxel();
  showLegend(seen);
  if (state.tilesOn) askTiles();
  $("status").textContent = `${volume.obs_id}: ${(performance.now() - began).toFixed(1)} ms`;
  prefetch();
}

function drawMarks() {
  const { cursor, crosshair, tilesOn, tiles } = state;
  for (const box of boxes) box.drawMarks({ cursor, crosshair, tiles: tilesOn ? tiles : null });
}

function prefetch() {
  const box = boxes.find((b) => b.view.name === state.active);
  const { axis } = box.view;
  for (const step of [1, -1, 2, -2]) {
    const index = state.cursor[axis] + step;
    if (index >= 0 && index < state.volume.shape[axis]) {
      plane(state.volume, axis, index, state.t).catch(() => {});
    }
  }
}

function showVoxel() {
  const box = boxes.find((b) => b.voxels);
  if (!box) return;
  const { axis } = box.view;
  const [a, b] = [0, 1, 2].filter((other) => other !== axis).map((other) => state.cursor[other]);
  const value = box.voxels.data[a * box.voxels.shape[1] + b];
  $("value").textContent = Number.isInteger(value) ? value : +Number(value).toPrecision(6);
  const label = box.labelled ? box.labelled.data[a * box.labelled.shape[1] + b] : 0;
  const mm = state.volume.affine.slice(0, 3).map((row) =>
    row[0] * state.cursor[0] + row[1] * state.cursor[1] + row[2] * state.cursor[2] + row[3]);
  const names = ["RL", "AP", "SI"].map((pair, i) => `${pair[mm[i] >= 0 ? 0 : 1]} ${Math.abs(mm[i]).toFixed(1)}`);
  fillRows($("where"), {
    index: state.cursor.join(", "), mm: names.join(", "), label: label ? labelText(label) : undefined,
  });
  $("timevalue").textContent = state.t;
}

function labelText(value) {
  const name = state.overlay?.names?.[value];
  return name ? `${value} ${name}` : String(value);
}

function showLegend(seen) {
  const space = "http://www.w3.org/2000/svg";
  const items = [...seen].sort((a, b) => a - b).slice(0, 40).map((value) => {
    const [item, mark, dot] = [document.createElement("li"), document.createElementNS(space, "svg"), document.createElementNS(space, "circle")];
    mark.setAttribute("viewBox", "0 0 2 2");
    for (const side of ["cx", "cy", "r"]) dot.setAttribute(side, "1");
    dot.setAttribute("fill", `rgb(${colourOf(value).join()})`);
    mark.append(dot);
    item.append(mark, labelText(value));
    return item;
  });
  $("legend").replaceChildren(...items);
}

// Tiles

async function askTiles() {
  const asked = ++state.askedTiles;
  const side = Math.max(1, Math.floor($("patch").value) || 1);
  const { collection, obs_id: volume } = state.volume;
  try {
    const found = await json("tiles", {
      collection, volume, centre: state.cursor.join(), size: [side, side, side].join(), t: state.t,
    });
    if (asked !== state.askedTiles || !state.tilesOn) return;
    state.tiles = found;
    const size = found.start.map((start, i) => found.stop[i] - start).join("×");
    const waste = found.patch_bytes ? found.decoded_bytes / found.patch_bytes : 0;
    $("tiles").textContent = `${size} at ${found.start.join(", ")}: ${found.n_tiles} tiles, `
      + `${found.n_tiles - found.n_decoded} of one value (never read), ${found.n_decoded} decoded `
      + `from ${bytes(found.compressed_bytes)}; ${waste.toFixed(1)}× the patch is decoded`;
    document.body.dataset.tiles = found.n_tiles;
  } catch (error) {
    state.tiles = null;
    $("tiles").textContent = error.message;
  }
  drawMarks();
}

function toggleTiles(on = !state.tilesOn) {
  state.tilesOn = $("showtiles").checked = on;
  if (on) askTiles();
  else { $("tiles").textContent = ""; drawMarks(); }
}

function bytes(n) {
  for (const unit of ["B", "kB", "MB"]) {
    if (n < 1000) return `${unit === "B" ? n : n.toFixed(1)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} GB`;
}

// Keys and mouse

function scroll(steps) {
  const box = boxes.find((b) => b.view.name === state.active);
  const { axis } = box.view;
  const last = state.volume.shape[axis] - 1;
  const next = Math.min(last, Math.max(0, state.cursor[axis] + steps));
  if (next === state.cursor[axis]) return;
  state.cursor[axis] = next;
  draw();
}

function step(items, current, by) {
  const at = items.findIndex(current);
  return items[Math.min(items.length - 1, Math.max(0, at + by))];
}

const KEYS = {
  ArrowUp: () => scroll(1), ArrowDown: () => scroll(-1), PageUp: () => scroll(10),
  PageDown: () => scroll(-10), Home: () => scroll(-1e9), End: () => scroll(1e9),
  ArrowLeft: () => setTime(state.t - 1), ArrowRight: () => setTime(state.t + 1),
  o: () => { state.labelsOn = !state.labelsOn; draw(); },
  t: () => toggleTiles(), r: () => resetWindow(),
  x: () => { state.crosshair = !state.crosshair; drawMarks(); },
  f: () => { document.body.classList.toggle("solo"); resized(); },
  n: () => showSubject(step(state.ids, (id) => id === state.subject, 1)),
  p: () => showSubject(step(state.ids, (id) => id === state.subject, -1)),
  "[": () => nextVolume(-1), "]": () => nextVolume(1),
  "+": () => zoomActive(1.25), "=": () => zoomActive(1.25), "-": () => zoomActive(0.8), 0: () => zoomActive(0),
  c: () => openSheet(),
  1: () => activate("axial"), 2: () => activate("coronal"), 3: () => activate("sagittal"),
};

function openSheet() { sheet.show(collections, state.volume).catch(complain); }

// Zoom a plane around a place in it, by default its middle; 0 shows all of it again.
function zoomActive(by) { zoom(boxes.find((b) => b.view.name === state.active), by); }

function zoom(box, by, x = box.element.clientWidth / 2, y = box.element.clientHeight / 2) {
  box.zoomBy(by, x, y);
  drawMarks();
}

function nextVolume(by) {
  const button = step([...$("volumes").children], (b) => b.getAttribute("aria-pressed") === "true", by);
  showVolume(button.dataset.collection, button.dataset.volume);
}

function activate(name) {
  state.active = name;
  for (const box of boxes) box.element.classList.toggle("active", box.view.name === name);
  if (document.body.classList.contains("solo")) resized();
}

function setTime(t) {
  const last = (state.volume?.shape[3] ?? 1) - 1;
  state.t = Math.min(last, Math.max(0, t));
  $("time").value = state.t;
  draw();
}

function resized() {
  for (const box of boxes) box.layOut();
  drawMarks();
}

function listen(box) {
  const { element } = box;
  const { name } = box.view;
  element.addEventListener("pointerenter", (event) => { if (!event.buttons) activate(name); });
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    activate(name);
    if (event.ctrlKey || event.metaKey) {
      const place = element.getBoundingClientRect();
      zoom(box, event.deltaY < 0 ? 1.25 : 0.8, event.clientX - place.left, event.clientY - place.top);
      return;
    }
    scroll(event.deltaY < 0 ? 1 : -1);
  }, { passive: false });
  let from = null;
  element.addEventListener("pointerdown", (event) => {
    activate(name);
    element.setPointerCapture(event.pointerId);
    const pans = event.shiftKey || event.button === 1;
    from = { x: event.clientX, y: event.clientY, low: state.low, high: state.high, pans, pan: [...box.pan] };
    if (event.button === 0 && !pans) { state.cursor = box.voxelAt(event, state.cursor); draw(); }
  });
  element.addEventListener("pointermove", (event) => {
    if (!from || !state.volume) return;
    if (from.pans) {
      box.pan = [from.pan[0] + event.clientX - from.x, from.pan[1] + event.clientY - from.y];
      box.layOut();
      drawMarks();
      return;
    }
    if (event.buttons & 1) { state.cursor = box.voxelAt(event, state.cursor); draw(); }
    if (event.buttons & 2) {
      const width = from.high - from.low;
      const gain = Math.max(width, 1e-6) / 300;
      const wider = Math.max(width / 100, width + (event.clientX - from.x) * gain);
      setWindow((from.low + from.high) / 2 + (event.clientY - from.y) * gain, wider);
    }
  });
  element.addEventListener("pointerup", () => { from = null; });
}

function listenAll() {
  let pause;
  for (const id of ["find", "filter"]) {
    $(id).addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(() => { listSubjects(); if (sheet.isOpen) sheet.list().catch(complain); }, 200); });
  }
  $("more").addEventListener("click", () => listSubjects(state.ids.length));
  $("list").addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (item) { sheet.close(); showSubject(item.dataset.id); }
  });
  for (const id of ["centre", "width"]) {
    $(id).addEventListener("change", () => setWindow($("centre").valueAsNumber, $("width").valueAsNumber));
  }
  $("opacity").addEventListener("input", draw);
  $("time").addEventListener("input", () => setTime($("time").valueAsNumber));
  $("overlay").addEventListener("change", () => {
    state.overlay = $("overlay").value === "" ? null : state.volume.overlays[+$("overlay").value];
    draw();
  });
  $("patch").addEventListener("input", () => toggleTiles(true));
  $("showtiles").addEventListener("change", () => toggleTiles($("showtiles").checked));
  $("opensheet").addEventListener("click", openSheet);
  window.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=checkbox]):not([type=range]), select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !state.volume) return;
    if (sheet.isOpen) { sheet.key(event); return; }
    const act = KEYS[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  new ResizeObserver(resized).observe($("planes"));
}

function complain(error) {
  $("problem").textContent = error.message ?? String(error);
  $("status").textContent = "";
}

async function start() {
  const blank = { axis: 2, across: 0, down: 1, letters: {}, size_mm: [1, 1] };
  boxes = ["axial", "coronal", "sagittal"].map((name) => new PlaneBox({ ...blank, name }, $("planes")));
  boxes.forEach(listen);
  listenAll();
  const overview = await json("overview");
  collections = overview.collections;
  document.title = `${overview.name} – RadiObject`;
  $("dataset").textContent = overview.name;
  const volumes = overview.collections.reduce((sum, c) => sum + c.volumes, 0);
  $("summary").textContent = `${overview.subjects} subjects, ${volumes} volumes in ${overview.collections.length} collections`;
  $("filter").title = `Columns: ${overview.columns.join(", ")}`;
  await listSubjects();
  if (state.ids.length) await showSubject(state.ids[0]);
}

window.addEventListener("unhandledrejection", (event) => complain(event.reason));
start().catch(complain);
