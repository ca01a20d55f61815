// Songs that are dropped: files and folders, two at a time, each with its progress.

import { $, ask, doing, h, named, say, setText, show, size } from "/dom.js";

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
  for (const each of told) line.push(upload(each));
  pump();
}

function upload({ file, path }) {
  const sub = h("p", { class: "sub" }, "Waits");
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Upload of ${path}` });
  const item = { file, path, sub, bar, state: "waits", xhr: null };
  const stop = doing("Cancel", `Do not send ${path}`, async () => leave(item), { class: "quiet" });
  const retry = doing("Again", `Send ${path} again`, async () => {
    item.state = "waits";
    settle(item, "Waits");
    line.push(item);
    pump();
  }, { class: "quiet" });
  const text = h("div", { class: "text" }, h("div", { class: "title" }, named(path)), sub, bar);
  Object.assign(item, { stop, retry, element: h("li", { class: "row" }, text, h("div", { class: "buttons" }, retry, stop)) });
  $("uploads").append(item.element);
  const wrong = why(file, path);
  if (wrong) item.state = "refused";
  settle(item, wrong || "Waits");
  return item;
}

function settle(item, sentence) {
  setText(item.sub, sentence);
  item.element.dataset.state = item.state === "failed" || item.state === "refused" ? "failed" : item.state;
  show(item.bar, item.state === "sends");
  show(item.retry, item.state === "failed");
  setText(item.stop, item.state === "waits" || item.state === "sends" ? "Cancel" : "Dismiss");
}

function leave(item) {
  item.state = "left";
  item.xhr?.abort();
  item.element.remove();
}

function pump() {
  while (sending < AT_ONCE && line.length) {
    const item = line.shift();
    if (item.state === "waits") send(item);
  }
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
  Object.assign(item, { xhr, state: "sends" });
  sending += 1;
  const end = (state, sentence) => {
    sending -= 1;
    if (item.state !== "left") {
      item.state = state;
      settle(item, sentence);
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
  settle(item, "0 %");
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
      const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // a hundred at a time
      if (!some.length) break;
      left.push(...some);
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
  addEventListener("beforeunload", (event) => {
    if (sending) event.preventDefault();
  });
  watchDragging();
  learn().catch(() => {}); // the events say that the server is gone
}
