// The page "Songs": a search, and one song with its player and downloads.

import { $, ask, clock, doing, h, keep, named, say, setText, show, size, some, titled } from "/dom.js";
import { again, cancel, prefer, songRow, STATES } from "/now.js";

const PAUSE_MS = 250;

let shown = 0;
let asked = 0;

// ---- the list

function wish(start) {
  const state = new FormData($("search")).get("state") ?? "";
  return `/songs?${new URLSearchParams({ q: $("query").value.trim(), state, start })}`;
}

export async function search(isMore = false) {
  const number = (asked += 1);
  try {
    let rows = isMore ? [...$("found").rows.values()].map((item) => item.row) : [];
    const wanted = isMore ? rows.length + 1 : Math.max(shown, 1);
    let total = 0;
    let counts = {};
    do {
      const found = await ask("GET", wish(rows.length));
      if (number !== asked) return;
      rows = [...rows, ...found.songs];
      ({ total, counts } = found);
      if (!found.songs.length) break;
    } while (rows.length < wanted && rows.length < total);
    shown = rows.length;
    list(rows, total, counts);
  } catch (error) {
    setText($("found-empty"), error.message);
    show($("found-empty"), true);
  }
}

function list(rows, total, counts) {
  keep($("found"), rows, (row) => row.id, (row) => {
    const item = songRow(row);
    return { ...item, row, update(next) { this.row = next; item.update(next); } };
  });
  const isAny = ["done", "failed", "cancelled"].some((state) => counts[state]);
  setText($("found-empty"), isAny ? "No song fits." : "No song has ended yet. Drop one on the page “Now”.");
  show($("found-empty"), !rows.length);
  show($("found-more"), rows.length < total);
  setText($("found-more"), `Show more of ${some(total, "song")}`);
}

// ---- one song

let open = null; // {id, told: {part: what was shown}, player, isOver}

export async function showSong(id, isNews = true) {
  if (open?.id !== id) leaveSong();
  open ??= { id, told: {}, player: null, isOver: false };
  if (open.isOver && !isNews) return;
  const mine = open;
  try {
    const song = await ask("GET", `/songs/${id}`);
    if (open !== mine) return;
    mine.isOver = !song.can_cancel;
    document.title = `${song.name} – demixd`;
    for (const [part, facts, make] of PARTS) {
      const told = JSON.stringify(facts(song));
      if (mine.told[part] === told) continue; // whoever is at a button or a player there stays there
      mine.told[part] = told;
      $(part).replaceChildren(...[make(song)].flat().filter(Boolean));
    }
    await play(mine, song);
  } catch (error) {
    if (open !== mine) return;
    if (!mine.told["song-title"] || error.status === 404) {
      leaveSong();
      $("song-title").textContent = error.status === 404 ? "This song has gone" : "This song cannot be shown";
      $("song-trouble").replaceChildren(h("p", { class: "card" }, error.message));
    }
  }
}

export function leaveSong() {
  open?.player?.destroy();
  open = null;
  for (const [part] of PARTS) $(part).replaceChildren();
  $("player").replaceChildren();
  document.title = "demixd";
}

function facts(song) {
  const state = h("p", { class: "facts" }, h("span", { class: "badge", "data-state": song.state }, STATES[song.state] ?? song.state));
  const told = [
    song.duration_s ? `${clock(song.duration_s)} long` : "",
    song.engine ? `by ${song.engine}` : "",
    song.profile ? `profile ${song.profile}` : "",
    song.made_before ? "made before, from the same sound" : "",
    song.tag ? `tag: ${song.tag}` : "",
  ];
  for (const fact of told.filter(Boolean)) state.append(h("span", {}, named(fact)));
  return state;
}

function progress(song) {
  if (song.state !== "running" && song.state !== "waiting") return null;
  const item = songRow(song);
  item.update({ ...song, can_cancel: false, can_come_back: false });
  return h("div", { class: "card plain" }, item.element.querySelector(".sub"), item.element.querySelector("progress"));
}

function trouble(song) {
  if (!song.error) return null;
  return h(
    "div",
    { class: "card bad" },
    h("h2", {}, "What is wrong"),
    h("p", {}, song.error.message),
    song.error.remedy ? h("p", { class: "muted" }, h("b", {}, "What to do: "), song.error.remedy) : null,
    song.error.detail ? h("details", {}, h("summary", {}, "For developers"), h("pre", { tabindex: 0 }, song.error.detail)) : null,
  );
}

function warnings(song) {
  const told = [...song.warning_texts, ...(song.fallback ? [song.fallback] : [])];
  return told.length ? h("div", { class: "card warn" }, h("ul", {}, ...told.map((each) => h("li", {}, each)))) : null;
}

const EXTRAS = { peaks: "Waveforms", page: "A page that plays them" };

const PLACES = [[90, "First"], [10, "Sooner"], [0, "Normal"], [-10, "Later"]];

function buttons(song) {
  const made = [];
  if (song.can_cancel) made.push(doing("Cancel", `Cancel ${song.name}`, () => cancel(song)));
  if (song.can_come_back) made.push(doing("Try it again", `Try ${song.name} again`, () => again(song), { class: "primary" }));
  if (song.priority !== null) {
    const places = PLACES.some(([value]) => value === song.priority) ? PLACES : [...PLACES, [song.priority, `Priority ${song.priority}`]];
    const select = h("select", {}, ...places.map(([value, label]) => h("option", { value, selected: value === song.priority }, label)));
    select.addEventListener("change", () => prefer(song, Number(select.value)).catch((error) => say(error.message, true)));
    made.push(h("label", { class: "place" }, "Place in the queue", select));
  }
  return made.length ? h("div", { class: "buttons" }, ...made) : null;
}

// ---- its result

async function play(mine, song) {
  const told = JSON.stringify(song.result);
  if (mine.told.player === told) return;
  mine.told.player = told;
  mine.player?.destroy();
  mine.player = null;
  $("player").replaceChildren();
  if (!song.result || !window.demixdPlayer) return;
  const { stems, rate, frames, channels } = song.result;
  const peaks = song.result.peaks ? await ask("GET", song.result.peaks).catch(() => null) : null;
  if (open !== mine || mine.player) return;
  mine.player = window.demixdPlayer($("player"), { title: song.name, stems, peaks, rate, frames, channels, served: true });
}

function gone(song) {
  return song.state === "done" ? [h("p", { class: "card empty" }, "The stems are not in the outbox any more: somebody has taken them.")] : [];
}

function downloads({ result: found }) {
  const link = (url, text, facts) => h("a", { href: url, download: true, ...facts }, text);
  const rows = found.stems.map((stem) => download(stem.url, stem.label, stem.file, stem.silent ? `${size(stem.bytes)} · silent` : size(stem.bytes)));
  const extras = found.extras.map((extra) => download(extra.url, EXTRAS[extra.kind] ?? extra.kind, extra.file, size(extra.bytes)));
  return [
    h(
      "section",
      { class: "card", "aria-labelledby": "downloads-title" },
      h("h2", { id: "downloads-title" }, "Download"),
      h("ul", { class: "rows" }, ...rows, ...extras),
      h("p", { class: "more" }, link(found.zip, "All as one ZIP", { class: "button primary" })),
    ),
  ];
}

function download(url, label, file, facts) {
  const text = h("div", { class: "text" }, h("div", { class: "title" }, named(label)), h("p", { class: "sub" }, named(file), ` · ${facts}`));
  const link = h("a", { href: url, download: true, class: "button quiet", "aria-label": `Download ${file}` }, "Download");
  return h("li", { class: "row" }, text, h("div", { class: "buttons" }, link));
}

// The parts of the page of a song: where each is, what it depends on, and how it is made.
const PARTS = [
  ["song-title", (song) => song.name, (song) => titled(song.name, (leaf) => leaf)],
  ["song-facts", (song) => [song.state, song.duration_s, song.engine, song.profile, song.made_before, song.tag], facts],
  ["song-progress", (song) => [song.state, song.step, song.fraction, song.eta_s, song.message, song.reason], progress],
  ["song-trouble", (song) => song.error, trouble],
  ["song-warnings", (song) => [song.warning_texts, song.fallback], warnings],
  ["song-buttons", (song) => [song.id, song.can_cancel, song.can_come_back, song.priority], buttons],
  ["downloads", (song) => [song.state, song.result], (song) => (song.result ? downloads(song) : gone(song))],
];

export function begin() {
  let waiting = 0;
  const soon = () => {
    clearTimeout(waiting);
    shown = 0;
    waiting = setTimeout(search, PAUSE_MS);
  };
  $("query").addEventListener("input", soon);
  $("search").addEventListener("change", soon);
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    soon();
  });
  $("found-more").addEventListener("click", () => search(true));
}
