// Songs that are dropped: files and folders, two at a time, each with its progress.

import { $, ask, doing, h, say, setText, show, size, some, titled } from "/dom.js";

const AT_ONCE = 2;
const MOST = 10000;
const STAYS_MS = 4000;

const STEMS = [
  ["vocals,instrumental", "Vocals and instrumental"],
  ["instrumental", "Instrumental alone"],
  ["vocals", "Vocals alone"],
  ["drums,bass,other,vocals", "Drums, bass, other, vocals"],
];

let settings = { extensions: [], max_bytes: Infinity, profiles: [], stems: [] };
const line = [];
let sending = 0;
let arrived = 0;

function why(file, path) {
  const dot = path.lastIndexOf(".");
  const extension = dot < 0 ? "" : path.slice(dot + 1).toLowerCase();
  if (!settings.extensions.includes(extension)) return "This is no kind of music that can be read here.";
  if (!file.size) return "It is empty.";
  return file.size > settings.max_bytes ? `It has ${size(file.size)}; ${size(settings.max_bytes)} are allowed.` : "";
}

const isHidden = (path) => path.split("/").some((part) => /^\.(?!\.)/.test(part));

// What may come is known as soon as the server has said it; again where it did not answer.
let known = null;
function learn() {
  known ??= ask("GET", "/settings").then(
    (found) => {
      settings = found;
      choices();
    },
    (error) => {
      known = null;
      throw error;
    },
  );
  return known;
}

async function add(files) {
  try {
    await learn();
  } catch (error) {
    say(error.message, true);
    return;
  }
  const wanted = files.filter(({ path }) => !isHidden(path)).slice(0, MOST);
  const songs = wanted.filter(({ file, path }) => !why(file, path));
  const others = wanted.length - songs.length;
  // Of a folder the covers and texts are passed over; what somebody has chosen by itself is told of.
  const told = songs.length ? songs : wanted.slice(0, 5);
  if (!wanted.length) return;
  if (!songs.length || others) say(songs.length ? `${others} files are no music, and stay here.` : "There is no music in that.", !songs.length);
  for (const each of told) {
    const wrong = why(each.file, each.path);
    if (wrong) settle(upload(each), "failed", wrong);
    else line.push(each);
  }
  pump();
}

// A row for what is sent, or cannot be; those that wait are only counted: there may be thousands.
function upload({ file, path }) {
  const sub = h("p", { class: "sub" });
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Upload of ${path}` });
  const item = { file, path, sub, bar, state: "waits", xhr: null };
  const stop = doing("×", `Do not send ${path}`, async () => leave(item), { class: "quiet sign", title: "Cancel" });
  const retry = doing("Again", `Send ${path} again`, async () => send(item), { class: "quiet" });
  const [folders, title] = titled(path, (leaf) => h("div", { class: "title" }, leaf));
  const text = h("div", { class: "text" }, folders, title, sub, bar);
  Object.assign(item, { stop, retry, element: h("li", { class: "row" }, text, h("div", { class: "buttons" }, retry, stop)) });
  $("uploads").append(item.element);
  return item;
}

function settle(item, state, sentence) {
  item.state = state;
  setText(item.sub, sentence);
  item.element.dataset.state = state;
  show(item.bar, state === "sends");
  show(item.retry, state === "failed" && !why(item.file, item.path));
  show(item.stop, state !== "arrived");
}

function leave(item) {
  item.state = "left";
  item.xhr?.abort();
  item.element.remove();
}

function pump() {
  while (sending < AT_ONCE && line.length) send(upload(line.shift()));
  show($("uploads-more"), line.length > 0);
  setText($("uploads-count"), `${some(line.length, "more song")} to be sent`);
  if (sending) return;
  if (arrived > 1) say(`${some(arrived, "song")} arrived.`); // one alone says so in its row
  arrived = 0;
}

function address(item) {
  const path = item.path.split("/").map(encodeURIComponent).join("/");
  const query = new URLSearchParams();
  if ($("profile").value) query.set("profile", $("profile").value);
  if ($("stems").value) query.set("stems", $("stems").value);
  return `/inbox/${path}${query.size ? `?${query}` : ""}`;
}

function send(item) {
  const xhr = new XMLHttpRequest();
  item.xhr = xhr;
  sending += 1;
  const end = (state, sentence) => {
    sending -= 1;
    arrived += state === "arrived" ? 1 : 0;
    if (item.state !== "left") {
      settle(item, state, sentence);
      if (state === "arrived") setTimeout(() => item.element.remove(), STAYS_MS);
    }
    pump();
  };
  xhr.upload.addEventListener("progress", (event) => {
    item.bar.value = event.loaded / (event.total || 1);
    setText(item.sub, `${Math.floor((100 * event.loaded) / (event.total || 1))} % of ${size(item.file.size)}`);
  });
  xhr.addEventListener("load", () => {
    let answer = {};
    try {
      answer = JSON.parse(xhr.responseText);
    } catch {
      answer = {};
    }
    if (xhr.status === 201) end("arrived", "It has arrived.");
    else end("failed", answer.error ?? `The server answers ${xhr.status}.`);
  });
  xhr.addEventListener("error", () => end("failed", "The connection broke off."));
  xhr.addEventListener("abort", () => end("left", ""));
  xhr.open("PUT", address(item));
  settle(item, "sends", "0 %");
  xhr.send(item.file);
}

// The files of what was dragged here, folders and all.
async function dragged(transfer) {
  const items = [...transfer.items].filter((each) => each.kind === "file");
  const entries = items.map((each) => each.webkitGetAsEntry?.() ?? each.getAsFile()); // both before the first await
  const left = entries.filter((each) => each && !(each instanceof File));
  const found = entries.filter((each) => each instanceof File).map((file) => ({ file, path: file.name }));
  while (left.length && found.length < MOST) {
    const entry = left.shift();
    const path = entry.fullPath.replace(/^\//, "");
    if (entry.isFile) {
      found.push({ file: await new Promise((done, fail) => entry.file(done, fail)), path });
      continue;
    }
    const reader = entry.createReader();
    for (;;) {
      const few = await new Promise((done, fail) => reader.readEntries(done, fail)); // a hundred at a time
      if (!few.length) break;
      left.push(...few);
    }
  }
  return found;
}

function watchDragging() {
  let depth = 0;
  const isOfFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const mark = () => document.body.classList.toggle("dragging", depth > 0);
  addEventListener("dragenter", (event) => { if (isOfFiles(event)) { depth += 1; mark(); } });
  addEventListener("dragleave", (event) => { if (isOfFiles(event)) { depth = Math.max(0, depth - 1); mark(); } });
  addEventListener("dragover", (event) => { if (isOfFiles(event)) event.preventDefault(); });
  addEventListener("drop", async (event) => {
    if (!isOfFiles(event)) return;
    event.preventDefault();
    depth = 0;
    mark();
    location.hash = "#now";
    try {
      await add(await dragged(event.dataTransfer));
    } catch {
      say("The browser cannot read what was dropped.", true);
    }
  });
}

function choices() {
  show($("profile-label"), settings.profiles.length > 0);
  $("profile").replaceChildren(
    h("option", { value: "" }, "As configured"),
    ...settings.profiles.map((each) => h("option", { value: each }, each)),
  );
  $("stems").replaceChildren(
    h("option", { value: "" }, settings.stems.length ? `As configured (${settings.stems.join(", ")})` : "As configured"),
    ...STEMS.map(([value, label]) => h("option", { value }, label)),
  );
  $("profile").addEventListener("change", () => setText($("stems").options[0], "As configured"));
  $("files").accept = ["audio/*", ...settings.extensions.map((each) => `.${each}`)].join(",");
  show($("choose-folder"), settings.folders && "webkitdirectory" in $("folder"));
}

export function begin() {
  $("choose").addEventListener("click", () => $("files").click());
  $("choose-folder").addEventListener("click", () => $("folder").click());
  for (const id of ["files", "folder"]) {
    $(id).addEventListener("change", () => {
      add([...$(id).files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
      $(id).value = "";
    });
  }
  $("uploads-stop").addEventListener("click", () => {
    line.length = 0;
    pump();
  });
  addEventListener("beforeunload", (event) => {
    if (sending) event.preventDefault();
  });
  watchDragging();
  learn().catch(() => {}); // the events say that the server is gone
}
