// Asks the server that this page came from. Every path is relative, so it carries the token.

const ARRAYS = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array,
  int32: Int32Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array,
};
const KEPT_PLANES = 192;
const planes = new Map();

async function ask(name, parameters) {
  const answer = await fetch(`api/${name}?${new URLSearchParams(parameters)}`);
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text;
  try { message = JSON.parse(text).error; } catch { /* the text is the message */ }
  throw new Error(message);
}

export async function json(name, parameters = {}) {
  return (await ask(name, parameters)).json();
}

export async function send(name, content) {
  const answer = await fetch(`api/${name}`, { method: "POST", body: JSON.stringify(content) });
  const found = await answer.json().catch(() => ({ error: answer.statusText }));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

// A plane of a volume: {data, shape}, its two axes in the order of the volume's. Those last used
// are kept; a promise is kept too, so that one plane is never asked for twice.
export function plane(volume, axis, index, t) {
  const labels = volume.labels ?? 0;
  const key = `${volume.collection}\n${volume.obs_id}\n${labels}\n${axis}\n${index}\n${t}`;
  let found = planes.get(key);
  if (found) {
    planes.delete(key);
  } else {
    found = fetchPlane({ collection: volume.collection, volume: volume.obs_id, labels, axis, index, t });
    found.catch(() => planes.delete(key));
    if (planes.size >= KEPT_PLANES) planes.delete(planes.keys().next().value);
  }
  planes.set(key, found);
  return found;
}

async function fetchPlane(parameters) {
  const answer = await ask("plane", parameters);
  const data = new ARRAYS[answer.headers.get("X-Dtype")](await answer.arrayBuffer());
  return { data, shape: answer.headers.get("X-Shape").split(",").map(Number) };
}
