// The player of a result: the stems of one song on one time line, each with a fader, mute and solo.
//
//   demixdPlayer(element, {title, stems: [{name, label, url, type, bytes}], peaks, rate, frames, channels, served})
//     -> {destroy(), ready, render(offset, frames)}
//
// `peaks` is a document of audiowaveform (JSON, version 2, 8 bits), its data a list or base64, or null. Sound comes by one of
// two engines: `decoded` (buffers, in step to the sample) where the page is served and the song fits into memory, else
// `streamed` (media elements). `ready` is kept once all stems are there; `render` has what decoded stems sound like.
//
// A classic script: pages opened from a folder may load no modules, and may not fetch. For such a page packed.py takes out
// comments and blanks; it knows strings and templates, so there are no regular expressions here, and no template in a template.
(() => {
  "use strict";

  const MOST_STEMS = 64,
    MOST_POINTS = 20000,
    MOST_TEXT = 1000,
    MOST = 2 ** 40,
    MOST_DECODED = 400e6, // bytes
    MOST_DECODED_PHONE = 150e6,
    AHEAD_S = 0.03, // sources are told to start so far ahead: "now" is over by the time the last one is told
    SHORTEST_LOOP_S = 0.05,
    // Media elements that are further apart than DRIFT_S are nudged by 4 %, which is hardly heard and makes up 30 ms in about a
    // second, until they are CLOSE_S. A seek makes a gap and ends at a time nobody can tell: it is for what is FAR_S apart.
    DRIFT_S = 0.03,
    CLOSE_S = 0.01,
    FAR_S = 0.15,
    NUDGE = 0.04,
    SEEK_AGAIN_MS = 1000;

  // ---- what is given is bounded and typed

  const within = (value, least, most) => Number.isInteger(value) && value >= least && value <= most;
  const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
  const listen = (node, name, act, more) => node.addEventListener(name, act, more);
  const textOf = value => String(value ?? "").slice(0, MOST_TEXT);

  function urlOf(text) {
    try {
      const url = new URL(text, document.baseURI);
      return url.protocol === location.protocol && url.host === location.host ? url.href : "";
    } catch {
      return ""; // no URL at all
    }
  }

  function songOf(given) {
    const number = (name, most, usual) => (within(given[name], 1, most) ? given[name] : usual);
    const stems = (given.stems ?? []).slice(0, MOST_STEMS).map(({ name, label, url }) => {
      return { name: textOf(name), label: textOf(label || name), url: urlOf(url) };
    });
    const rate = number("rate", 1e6, 44100), frames = number("frames", MOST, 1), channels = number("channels", 64, 2);
    const peaks = peaksOf(given.peaks, stems.length, frames);
    return { title: textOf(given.title), stems, rate, peaks, length: frames / rate, bytes: frames * channels * 4 * stems.length, served: given.served };
  }

  function peaksOf(peaks, stems, frames) {
    const { bits, channels, length, samples_per_pixel: step, data } = peaks ?? {};
    if (bits !== 8 || !within(channels, stems, 2 * MOST_STEMS) || !within(length, 1, MOST_POINTS) || !within(step, 1, MOST)) return null;
    try {
      const values = typeof data === "string" ? Int8Array.from(atob(data), each => each.charCodeAt(0)) : data;
      if (values.length !== 2 * channels * length) return null;
      const loudest = values.reduce((most, each) => Math.max(most, Math.abs(each)), 8); // quiet songs are drawn larger
      // The last point may be a shorter one, and so reach beyond the song's end.
      return { channels, length, reach: Math.max(1, (length * step) / frames), values, loudest };
    } catch {
      return null; // no data, or no base64
    }
  }

  // ---- sound

  // One gain node a stem, all into the context's output. What plays and what `render` gives are made by the same two functions.
  const graph = (context, levels) =>
    levels.map(gain => {
      const node = new GainNode(context, { gain });
      node.connect(context.destination);
      return node;
    });

  // All stems start at the same `when`, at the same `offset` (seconds), and loop alike: they are in step to the sample.
  const startAll = (context, buffers, gains, when, offset, loop) =>
    buffers.flatMap((buffer, n) => {
      if (!buffer) return [];
      const [loopStart, loopEnd] = loop ?? [0, 0];
      const source = new AudioBufferSourceNode(context, { buffer, loop: Boolean(loop), loopStart, loopEnd });
      source.connect(gains[n]);
      source.start(when, offset);
      return [source];
    });

  // A jump of the level would click.
  const fade = (node, level) => node.gain.setTargetAtTime(level, node.context.currentTime, 0.01);

  // At the song's own rate nothing is converted; a browser that cannot do that rate converts all stems alike.
  function atRate(make, rate) {
    try {
      return make(rate);
    } catch {
      return make(48000);
    }
  }

  // Whole stems in memory. `failed(n)` is told of a stem that cannot be played, `loaded()` of one that can.
  function decoded(song, root, failed, loaded) {
    const stop = new AbortController();
    const decoder = atRate(rate => new OfflineAudioContext(1, 1, rate), song.rate), rate = decoder.sampleRate;
    const buffers = song.stems.map(() => null), levels = song.stems.map(() => 1);
    let context, gains = [], sources = [], loop = null, at = 0, began = 0, playing = false;

    async function load({ url }, n) {
      try {
        const answer = url && (await fetch(url, { signal: stop.signal }));
        buffers[n] = await decoder.decodeAudioData(answer.ok && (await answer.arrayBuffer()));
        loaded();
      } catch {
        if (!stop.signal.aborted) failed(n);
      }
    }

    const onGrid = seconds => Math.round(seconds * rate) / rate;

    function here(now) {
      if (!playing) return at;
      const gone = at + Math.max(0, now - began);
      return loop && gone >= loop[1] ? loop[0] + ((gone - loop[0]) % (loop[1] - loop[0])) : gone;
    }

    // The old sources stop at the very sample at which the new ones start.
    function restart(position) {
      const when = onGrid(context.currentTime + AHEAD_S);
      sources.forEach(source => source.stop(when));
      at = onGrid(position ?? here(when));
      if (loop && at >= loop[1]) at = loop[0];
      began = when;
      sources = startAll(context, buffers, gains, when, at, loop);
    }

    return {
      ready: Promise.all(song.stems.map(load)),
      position: () => here(context?.currentTime),
      tick() {},
      wake() {
        context ??= atRate(sampleRate => new AudioContext({ sampleRate }), rate);
        context.resume();
      },
      async play() {
        if (!gains.length) gains = graph(context, levels);
        await context.resume();
        restart(at);
        playing = true;
      },
      pause() {
        if (!playing) return;
        at = here(context.currentTime);
        playing = false;
        sources.forEach(source => source.stop());
        sources = [];
        context.suspend();
      },
      seek(position) {
        if (playing) restart(position);
        else at = position;
      },
      loop(points) {
        if (!points && !loop) return;
        const next = playing ? here(context.currentTime + AHEAD_S) : at;
        // Codecs may end a few samples early; all stems turn at the same one.
        const end = Math.min(...buffers.map(each => each?.duration ?? song.length));
        loop = points && [onGrid(points[0]), onGrid(Math.min(points[1], end))];
        if (playing) restart(next);
      },
      level(n, level) {
        levels[n] = level;
        if (gains[n]) fade(gains[n], level);
      },
      render(offset, frames) {
        const offline = new OfflineAudioContext(2, frames, rate);
        startAll(offline, buffers, graph(offline, levels), 0, offset, loop);
        return offline.startRendering();
      },
      destroy() {
        stop.abort();
        context?.close();
      },
    };
  }

  // Media elements, which the first of them leads. Served pages have gain nodes for them: phones ignore `volume`.
  function streamed(song, root, failed, loaded) {
    const levels = song.stems.map(() => 1), dead = new Set(), seeked = new Map();
    let context, gains = [], loop = null, playing = false;
    const elements = song.stems.map(({ url }) => make("audio", { preload: "auto", src: url }));
    root.append(...elements);
    const live = () => elements.filter(element => !dead.has(element));
    // Files may end a little before the song does.
    const position = () => (live()[0]?.ended ? song.length : (live()[0]?.currentTime ?? 0));
    const seek = to => live().forEach(element => (element.currentTime = to));

    const known = (element, n) =>
      new Promise(resolve => {
        listen(element, "loadedmetadata", () => resolve(loaded()), { once: true });
        listen(element, "error", () => {
          dead.add(element);
          resolve(failed(n));
        });
      });

    function keepInStep(element, leader) {
      const drift = element.currentTime - leader.currentTime, apart = Math.abs(drift), now = performance.now();
      if (apart > FAR_S) {
        if (element.ended || now < seeked.get(element) + SEEK_AGAIN_MS) return;
        seeked.set(element, now);
        element.currentTime = leader.currentTime;
      } else if (apart > DRIFT_S) {
        element.playbackRate = drift > 0 ? 1 - NUDGE : 1 + NUDGE;
      } else if (apart < CLOSE_S || drift > 0 === element.playbackRate > 1) {
        element.playbackRate = 1;
      }
    }

    return {
      ready: Promise.all(elements.map(known)),
      position,
      tick() {
        const [leader, ...others] = live();
        if (loop && position() >= loop[1]) seek(loop[0]);
        else others.forEach(element => keepInStep(element, leader));
      },
      wake() {},
      async play() {
        if (song.served && !context) {
          context = new AudioContext();
          gains = graph(context, levels);
          elements.forEach((element, n) => context.createMediaElementSource(element).connect(gains[n]));
        }
        await context?.resume();
        playing = true;
        await Promise.all(live().map(element => element.play()));
      },
      pause() {
        playing = false;
        elements.forEach(element => {
          element.pause();
          element.playbackRate = 1;
        });
        seek(position());
      },
      seek,
      loop: points => (loop = points),
      level(n, level) {
        levels[n] = level;
        if (gains[n]) fade(gains[n], level);
        else if (!song.served) elements[n].volume = level;
      },
      destroy() {
        elements.forEach(element => element.removeAttribute("src"));
        elements.forEach(element => element.load()); // lets go of the file
        context?.close();
      },
    };
  }

  // ---- what is seen

  const set = (node, attributes) => Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    set(node, attributes);
    node.append(...children);
    return node;
  }

  function clock(seconds) {
    const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
    const [first, ...rest] = parts[0] ? parts : parts.slice(1);
    return [first, ...rest.map(part => String(part).padStart(2, "0"))].join(":");
  }

  // The lowest and the highest sample of each column, around the middle; a plain line without peaks.
  function draw(canvas, peaks, channel) {
    const ratio = clamp(devicePixelRatio, 1, 3), pen = canvas.getContext("2d");
    const width = (canvas.width = Math.round(canvas.clientWidth * ratio));
    const height = (canvas.height = Math.round(canvas.clientHeight * ratio));
    const { channels, length, reach, values, loudest } = peaks || { channels: 1, length: 1, reach: 1, values: [0, 0], loudest: 1 };
    pen.fillStyle = getComputedStyle(canvas).color;
    for (let x = 0; x < width; x++) {
      const [first, next] = [x, x + 1].map(each => Math.floor((each / width) * (length / reach)));
      let low = 1, high = -1;
      for (let point = Math.min(first, length - 1); point < Math.min(Math.max(next, first + 1), length); point++) {
        const at = 2 * (point * channels + (peaks ? channel : 0));
        low = Math.min(low, clamp(values[at] / loudest, -1, 1));
        high = Math.max(high, clamp(values[at + 1] / loudest, -1, 1));
      }
      const tall = Math.max(((high - low) / 2) * height, ratio);
      pen.fillRect(x, ((2 - high - low) / 4) * height - tall / 2, 1, tall);
    }
  }

  // What was set at the last visit; a browser may keep nothing, and then each visit is the first.
  function kept(title, value) {
    const key = `demixd:${title}`;
    try {
      if (value) localStorage.setItem(key, JSON.stringify(value));
      return JSON.parse(localStorage.getItem(key)) ?? {};
    } catch {
      return {};
    }
  }

  function demixdPlayer(element, given) {
    const song = songOf(given), { length, title } = song;
    const isPhone = matchMedia("(pointer: coarse)").matches;
    const isStreamed = !song.served || song.bytes > (isPhone ? MOST_DECODED_PHONE : MOST_DECODED);
    const before = kept(title), gone = new AbortController(), on = { signal: gone.signal };
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    let playing = false, wanted = false, dragged = null, a = null, b = null, timer = 0, shownAt = 0, count = 0;

    const button = (name, text, act, more) => {
      const made = make("button", { type: "button", class: `dp-${name}`, ...more }, text);
      listen(made, "click", act);
      return made;
    };
    const toggle = button("play", "", () => (wanted ? pause() : play()), { "aria-label": "Play" });
    const time = make("span", { class: "dp-time" });
    const setA = button("a", "A", () => mark("a"), { title: "Loop from here" });
    const setB = button("b", "B", () => mark("b"), { title: "Loop to here" });
    const clear = button("clear", "Clear", () => mark(""), { title: "Clear the loop" });
    const loops = make("div", { class: "dp-loop", role: "group", "aria-label": "Loop" }, "Loop", setA, setB, clear);
    const line = make("div", { class: "dp-line", role: "slider", tabindex: 0, "aria-label": "Position" });
    set(line, { "aria-valuemin": 0, "aria-valuemax": length.toFixed(1) });
    const list = make("ol", { class: "dp-stems" });
    const news = make("p", { role: "status" });
    const root = make("section", { class: "demixd-player", "aria-label": `Player: ${title}` });
    root.append(make("div", { class: "dp-bar" }, toggle, time, loops), line, list, news);
    if (isStreamed) {
      const why = song.served ? "This song is too large to be held in memory" : "This page was opened from a folder";
      root.append(make("p", {}, `${why}: the stems are kept in step only approximately.`));
    }

    const rows = song.stems.map(({ name, label }, n) => {
      const { volume, mute, solo } = before[name] ?? {}, id = `dp-${Math.random()}`;
      const row = { volume: within(volume, 0, 100) ? volume : 100, mute: mute === true, solo: solo === true, dead: false };
      row.fader = make("input", { type: "range", id, class: "dp-fader", min: 0, max: 100 });
      listen(row.fader, "input", () => {
        row.volume = Number(row.fader.value);
        heard();
      });
      row.buttons = ["Mute", "Solo"].map(text => {
        const what = text.toLowerCase();
        return button(what, text, () => flip(n, what), { "aria-label": `${text} ${label}` });
      });
      row.canvases = ["rest", "played"].map(part => make("canvas", { class: `dp-${part}` }));
      row.wave = make("div", { class: "dp-wave", "aria-hidden": true }, ...row.canvases);
      const named = make("label", { class: "dp-name", for: id, dir: "auto", title: label }, label);
      row.node = make("li", { class: "dp-stem" }, make("div", { class: "dp-head" }, named, row.fader, ...row.buttons), row.wave);
      row.node.style.setProperty("--hue", [214, 168, 24, 266, 325, 75][n % 6]);
      seekable(row.wave);
      list.append(row.node);
      return row;
    });

    const failed = n => {
      const { label, url } = song.stems[n], row = rows[n];
      row.dead = true;
      for (const control of [row.fader, ...row.buttons]) control.disabled = true;
      const told = make("p", {}, `${label} is not there, or this browser cannot play it. `);
      if (url) told.append(make("a", { href: url, download: "" }, `Download ${label}`));
      row.wave.replaceWith(told);
      heard();
      loading();
      if (toggle.disabled) pause();
    };
    const engine = (isStreamed ? streamed : decoded)(song, root, failed, () => loading(++count));

    function loading() {
      const all = rows.length, dead = rows.filter(row => row.dead).length, isOver = count + dead >= all;
      toggle.disabled = dead === all;
      set(toggle, { "aria-busy": !isOver });
      news.textContent = isOver ? "" : `Loading the stems: ${count} of ${all}`;
    }

    // Soloed stems are heard if there are any, else those that are not muted.
    function heard() {
      const isSolo = rows.some(row => row.solo && !row.dead);
      rows.forEach(({ volume, mute, solo, fader, buttons, node }, n) => {
        const isHeard = isSolo ? solo : !mute;
        fader.value = volume;
        set(fader, { "aria-valuetext": `${volume} %` });
        [mute, solo].forEach((state, which) => set(buttons[which], { "aria-pressed": state }));
        node.classList.toggle("dp-silent", !isHeard || !volume);
        engine.level(n, isHeard ? (volume / 100) ** 2 : 0); // squared: half the way sounds about half as loud
      });
      kept(title, Object.fromEntries(rows.map(({ volume, mute, solo }, n) => [song.stems[n].name, { volume, mute, solo }])));
    }

    function flip(n, what) {
      if (!rows[n] || rows[n].dead) return;
      rows[n][what] = !rows[n][what];
      heard();
    }

    const here = () => clamp(engine.position(), 0, length);
    const place = (name, seconds) => root.style.setProperty(name, (seconds ?? 0) / length);

    function show() {
      const at = dragged ?? here();
      place("--at", at);
      time.textContent = `${clock(at)} / ${clock(length)}`;
      set(line, { "aria-valuenow": at.toFixed(1), "aria-valuetext": `${clock(at)} of ${clock(length)}` });
    }

    function mark(point) {
      const at = here();
      if (point === "a") {
        a = Math.min(at, length - SHORTEST_LOOP_S);
        if (b < a + SHORTEST_LOOP_S) b = null;
      } else if (point) {
        [a, b] = at < a ? [at, a] : [a, Math.min(Math.max(at, a + SHORTEST_LOOP_S), length)];
      } else a = b = null;
      place("--a", a);
      place("--b", b ?? a);
      root.classList.toggle("dp-marked", a !== null);
      setA.textContent = a === null ? "A" : `A ${clock(a)}`;
      setB.textContent = b === null ? "B" : `B ${clock(b)}`;
      setB.disabled = clear.disabled = a === null;
      engine.loop(b === null ? null : [a, b]);
    }

    function lit(isOn) {
      wanted = isOn;
      toggle.classList.toggle("dp-on", isOn);
      set(toggle, { "aria-label": isOn ? "Pause" : "Play" });
    }

    async function play() {
      lit(true);
      engine.wake(); // while the press counts: phones allow sound to nothing that begins later
      await engine.ready;
      if (!wanted || playing) return;
      playing = true;
      try {
        await engine.play();
      } catch {
        // Browsers begin only where somebody has just touched the page, and loading may have taken longer than that.
        if (wanted) news.textContent = "The browser did not begin to play: press play again.";
        return pause();
      }
      if (!wanted) return engine.pause();
      timer = setInterval(tick, 100); // also while the page is hidden, when no frames come
      requestAnimationFrame(frame);
    }

    function pause() {
      lit(false);
      playing = false;
      clearInterval(timer);
      engine.pause();
      show();
    }

    function tick() {
      engine.tick();
      if (engine.position() < length - 0.01) return;
      pause();
      seek(0);
    }

    function frame(now) {
      if (!playing) return;
      if (!calm.matches || now > shownAt + 500) {
        shownAt = now;
        show();
      }
      requestAnimationFrame(frame);
    }

    function seek(to) {
      engine.seek(clamp(to, 0, length));
      show();
    }

    // The song goes on from where the finger is lifted; a finger that scrolls the page changes nothing.
    function seekable(node) {
      const drag = (name, act) =>
        listen(node, name, event => {
          const { left, width } = node.getBoundingClientRect();
          act(clamp((event.clientX - left) / width, 0, 1) * length, event);
          show();
        });
      drag("pointerdown", (at, event) => {
        if (event.button) return;
        node.setPointerCapture(event.pointerId);
        dragged = at;
      });
      drag("pointermove", at => (dragged = dragged === null ? null : at));
      drag("pointercancel", () => (dragged = null));
      drag("pointerup", at => {
        if (dragged === null) return;
        dragged = null;
        seek(at);
      });
    }

    const STEPS = { ArrowLeft: -5, ArrowRight: 5, ArrowDown: -5, ArrowUp: 5, PageDown: -30, PageUp: 30, Home: -MOST, End: MOST };

    // Keys are ours while nothing outside the player has the focus, and nothing in it that needs them itself.
    function pressed(event) {
      const { target, key, code, shiftKey } = event, isLine = target === line, isSideways = key.endsWith("t");
      if (event.ctrlKey || event.altKey || event.metaKey || !(target === document.body || root.contains(target))) return;
      if (key === " " && !target.matches("button, a")) toggle.click();
      else if (code > "Digit0" && code <= "Digit9") flip(code[5] - 1, shiftKey ? "solo" : "mute");
      else if (key.toLowerCase() === "l" && !event.repeat) mark(a === null ? "a" : b === null ? "b" : "");
      else if (key in STEPS && (isLine || (isSideways && !target.matches("input")))) seek(here() + STEPS[key]);
      else return;
      event.preventDefault();
    }

    const redraw = () => rows.forEach(({ canvases }, n) => canvases.forEach(canvas => draw(canvas, song.peaks, n)));
    const sizes = new ResizeObserver(redraw);
    listen(document, "keydown", pressed, on);
    listen(matchMedia("(prefers-color-scheme: dark)"), "change", redraw, on);
    seekable(line);
    element.replaceChildren(root);
    sizes.observe(list);
    heard();
    loading();
    mark("");
    show();
    return {
      ready: engine.ready,
      render: engine.render,
      destroy() {
        pause();
        gone.abort();
        sizes.disconnect();
        engine.destroy();
        root.remove();
      },
    };
  }

  window.demixdPlayer = demixdPlayer;

  // The page of a result has its song beside the script.
  const found = document.getElementById("demixd-song");
  if (found) {
    const given = { ...JSON.parse(found.textContent), served: location.protocol.startsWith("http") };
    demixdPlayer.here = demixdPlayer(document.getElementById("demixd-player"), given);
  }
})();
