// The page "Now": the daemon, the songs that run and wait, and the last results.

import { $, ago, ask, clock, doing, h, keep, named, say, setText, show, some, titled } from "/dom.js";

const STEPS = {
  snapshot: "Copying",
  decode: "Reading",
  separate: "Separating",
  mix: "Mixing",
  encode: "Writing the stems",
  publish: "Putting it in place",
};

export const STATES = { done: "Done", failed: "Failed", cancelled: "Cancelled", waiting: "Waiting", running: "Running" };

function subtitle(row) {
  const left = row.eta_s === null ? "" : `${clock(row.eta_s)} left`;
  if (row.state === "running" && row.step) {
    const percent = `${Math.floor(100 * (row.fraction ?? 0))} %`;
    return [STEPS[row.step] ?? row.step, percent, left, row.speed].filter(Boolean).join(" · ");
  }
  if (row.state === "waiting" || row.state === "running") {
    const length = row.duration_s ? `${clock(row.duration_s)} long` : "";
    const why = row.reason === "queued" ? "" : row.message || row.reason;
    return [why, row.eta_s === null ? "" : `done in ${clock(row.eta_s)}`, length].filter(Boolean).join(" · ") || "In the queue";
  }
  const warnings = row.warnings ? some(row.warnings, "warning") : "";
  return [row.state === "done" ? (row.made_before ? "Made before" : "") : row.message, ago(row.since), warnings].filter(Boolean).join(" · ");
}

export const cancel = (row) => ask("POST", `/songs/${row.id}/cancel`).then(() => say("Asked to stop."));

export const again = (row) => ask("POST", `/songs/${row.id}/again`).then(() => say("It is tried again."));

export const prefer = (row, priority) =>
  ask("POST", `/songs/${row.id}/priority`, { priority }).then(() => say("Asked for another place in the queue."));

// A row of a list: the song's name leads to its page. `extra` are further buttons for it.
export function songRow(first, extra = () => []) {
  let row = first;
  const [folders, title] = titled(row.name, (leaf) => h("a", { class: "title", href: `#song/${row.id}` }, leaf));
  const badge = h("span", { class: "badge", "data-state": row.state });
  const sub = h("p", { class: "sub" });
  const bar = h("progress", { max: 1, "aria-label": `Progress of ${row.name}` });
  const stop = doing("×", `Cancel ${row.name}`, () => cancel(row), { class: "quiet sign", title: "Cancel" });
  const retry = doing("Again", `Try ${row.name} again`, () => again(row), { class: "quiet" });
  const text = h("div", { class: "text" }, folders, h("div", { class: "line" }, title, badge), sub, bar);
  const element = h("li", { class: "row" }, text, h("div", { class: "buttons" }, ...extra(() => row), stop, retry));
  const update = (next) => {
    row = next;
    element.dataset.state = row.state;
    setText(sub, subtitle(row));
    setText(badge, STATES[row.state] ?? row.state);
    badge.dataset.state = row.state;
    show(badge, ["done", "failed", "cancelled"].includes(row.state));
    show(bar, row.fraction !== null);
    bar.value = row.fraction ?? 0;
    show(stop, row.can_cancel);
    show(retry, row.can_come_back);
  };
  return { element, update };
}

const first = (row) => doing("↑", `Do ${row().name} first`, () => prefer(row(), 90), { class: "quiet sign", title: "Do it first" });

const byId = (row) => row.id;

function more(element, shown, total) {
  show(element, total > shown);
  setText(element, total > shown ? `and ${total - shown} more` : "");
}

function lines(list, sentences) {
  show(list, sentences.length > 0);
  list.replaceChildren(...sentences.map((sentence) => h("li", {}, sentence)));
}

export function showNow(now) {
  $("health").dataset.mood = now.health.mood;
  setText($("sentence"), now.health.sentence);
  lines($("trouble"), now.health.trouble);
  lines($("workers"), now.health.workers);
  show($("pause"), true);
  setText($("pause"), now.pause.file ? "Go on" : "Pause");
  $("pause").dataset.paused = now.pause.file;
  show($("pause-now"), !now.pause.file && now.running.length > 0);
  keep($("running"), now.running, byId, (row) => songRow(row));
  show($("running-empty"), !now.running.length);
  keep($("last"), now.last, byId, (row) => songRow(row));
  show($("last-empty"), !now.last.length);
  show($("no-songs-card"), now.no_songs_total > 0);
  setText($("no-songs-title"), `${some(now.no_songs_total, "file")} in the inbox ${now.no_songs_total === 1 ? "is no song" : "are no songs"}`);
  $("no-songs").replaceChildren(
    ...now.no_songs.map((each) =>
      h("li", { class: "row" }, h("div", { class: "text" }, h("div", { class: "title" }, named(each.name)), h("p", { class: "sub" }, each.why)))),
  );
}

export function showQueue(told) {
  keep($("queue"), told.queue, byId, (row) => songRow(row, (current) => [first(current)]));
  show($("queue-empty"), !told.queue.length);
  setText($("queue-count"), told.queue_total ? String(told.queue_total) : "");
  more($("queue-more"), told.queue.length, told.queue_total);
  const unseen = told.unseen.map((name) => ({
    id: `unseen ${name}`, name, state: "waiting", reason: "unseen", message: "In the inbox; no daemon has seen it yet.",
    fraction: null, eta_s: null, duration_s: null, can_cancel: false, can_come_back: false, warnings: 0,
  }));
  const total = told.waiting_total + told.unseen_total;
  keep($("waiting"), [...told.waiting, ...unseen], byId, (row) => (row.reason === "unseen" ? unseenRow(row) : songRow(row)));
  show($("waiting-card"), total > 0);
  setText($("waiting-count"), String(total));
  more($("waiting-more"), told.waiting.length + unseen.length, total);
}

function unseenRow(row) {
  const text = h("div", { class: "text" }, h("div", { class: "title" }, named(row.name)), h("p", { class: "sub" }, row.message));
  return { element: h("li", { class: "row" }, text), update: () => {} };
}

async function setPause(wish) {
  try {
    if (wish === null) await ask("DELETE", "/pause");
    else await ask("POST", "/pause", { now: wish });
    say(wish === null ? "It goes on." : wish ? "Paused at once: what runs waits again." : "Paused: what runs is finished.");
  } catch (error) {
    say(error.message, true);
  }
}

export function begin() {
  $("pause").addEventListener("click", () => setPause($("pause").dataset.paused === "true" ? null : false));
  $("pause-now").addEventListener("click", () => setPause(true));
}
