// The page's beginning: which part of it is shown, and the events by which it stays true.

import { $, ask, show } from "/dom.js";
import * as drop from "/drop.js";
import * as now from "/now.js";
import * as songs from "/songs.js";

const SILENT_MS = 40000; // the server gives a sign every 15 s
const AGAIN_MS = 3000;

let page = "";
let songId = "";

function go(isFirst) {
  const [name, id] = location.hash.replace(/^#/, "").split("/");
  const wanted = ["songs", "song"].includes(name) ? name : "now";
  const isNew = wanted !== page || (id ?? "") !== songId;
  if (location.hash === "#view") return; // "Skip to the songs"
  if (wanted !== "song") songs.leaveSong();
  page = wanted;
  songId = id ?? "";
  for (const each of ["now", "songs", "song"]) show($(`page-${each}`), each === page);
  for (const link of document.querySelectorAll("nav a")) {
    const isHere = link.dataset.page === (page === "song" ? "songs" : page);
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  refresh();
  if (isNew && !isFirst) {
    scrollTo(0, 0);
    $(`${page}-title`).focus({ preventScroll: true });
  }
}

function refresh() {
  if (page === "songs") songs.search();
  if (page === "song") songs.showSong(songId);
}

// ---- events

let source = null;
let heard = 0;
let retry = 0;

function lose(sentence) {
  $("lost").textContent = sentence;
  show($("lost"), true);
  document.body.classList.add("is-lost");
}

function hear() {
  heard = Date.now();
  show($("lost"), false);
  document.body.classList.remove("is-lost");
}

function listen() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource("/events");
  const mine = source;
  heard = Date.now();
  const on = (name, deed) =>
    mine.addEventListener(name, (event) => {
      hear();
      deed(event.data);
    });
  on("now", (data) => {
    now.showNow(JSON.parse(data));
    if (page === "song") songs.showSong(songId, false);
  });
  on("queue", (data) => now.showQueue(JSON.parse(data)));
  on("songs", refresh);
  on("beat", () => {});
  mine.onerror = () => {
    if (mine !== source) return;
    lose("The page's server does not answer. What is shown may be old; the page tries it again.");
    // After an answer that is none, such as 401, a browser does not try again by itself.
    if (mine.readyState === EventSource.CLOSED) retry = setTimeout(check, AGAIN_MS);
  };
}

async function check() {
  try {
    await ask("GET", "/settings");
    listen();
  } catch (error) {
    if (error.status === 401) location.reload(); // to the page that says how to get in
    else retry = setTimeout(check, AGAIN_MS);
  }
}

// A phone that has slept may hold a connection of which the other end is gone.
function wake() {
  if (document.visibilityState === "visible" && Date.now() - heard > SILENT_MS) listen();
}

document.addEventListener("visibilitychange", wake);
addEventListener("pageshow", wake);
addEventListener("online", listen);
setInterval(wake, 5000);
addEventListener("hashchange", () => go(false));

now.begin();
songs.begin();
drop.begin();
go(true);
listen();
