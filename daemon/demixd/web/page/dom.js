// Small helpers of the page. Text from outside gets into the page by textContent alone.

export const $ = (id) => document.getElementById(id);

// h("button", {class: "primary", onclick: f}, "text", element): an element.
export function h(tag, facts = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(facts)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// A name that others have chosen: it has its own direction, and none beyond it.
export function named(text) {
  const bdi = h("bdi", { dir: "auto" });
  bdi.textContent = text;
  return bdi;
}

// A song's path as a title: the folders small, above the name.
export function titled(path, make) {
  const at = path.lastIndexOf("/");
  const folders = at < 0 ? null : h("span", { class: "folder" }, named(path.slice(0, at).replaceAll("/", " / ")));
  return [folders, make(named(path.slice(at + 1)))];
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, isShown) {
  element.hidden = !isShown;
}

export function clock(seconds) {
  const all = Math.max(0, Math.round(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(all / 3600);
  const minutes = Math.floor(all / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(all % 60)}` : `${minutes}:${two(all % 60)}`;
}

export function size(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return bytes >= 1e6 ? `${Math.round(bytes / 1e6)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} kB`;
}

export function ago(utc) {
  const seconds = (Date.now() - Date.parse(utc)) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < 90) return "just now";
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(utc).toLocaleDateString();
}

export const some = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

// A list whose rows stay the same elements while their song does, so that whoever is at one with the keyboard stays there.
// make(row) gives {element, update}.
export function keep(list, rows, key, make) {
  const before = list.rows ?? new Map();
  const after = new Map();
  let place = list.firstChild;
  for (const row of rows) {
    const id = key(row);
    if (after.has(id)) continue;
    const item = before.get(id) ?? make(row);
    item.update(row);
    after.set(id, item);
    if (item.element === place) place = place.nextSibling;
    else list.insertBefore(item.element, place);
  }
  for (const [id, item] of before) if (!after.has(id)) item.element.remove();
  list.rows = after;
}

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

// The answer of our server as JSON. Throws Refused, with a sentence.
export async function ask(method, path, body) {
  let answer;
  try {
    const data = body === undefined ? undefined : JSON.stringify(body);
    answer = await fetch(path, { method, body: data, cache: "no-store" });
  } catch {
    throw new Refused(0, "The page's server does not answer.");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, found.error ?? `The server answers ${answer.status}.`);
  return found;
}

let hiding = 0;
export function say(sentence, isBad = false) {
  const said = $("said");
  said.textContent = sentence;
  said.classList.toggle("bad", isBad);
  said.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => said.classList.remove("shown"), isBad ? 8000 : 4000);
}

// A button that asks the server for something, and says what came of it.
export function doing(label, name, deed, facts = {}) {
  const button = h("button", { type: "button", ...facts, "aria-label": name }, label);
  button.addEventListener("click", async () => {
    button.setAttribute("aria-disabled", "true");
    try {
      await deed();
    } catch (error) {
      say(error.message, true);
    } finally {
      button.removeAttribute("aria-disabled");
    }
  });
  return button;
}
