// How old the page is, and its next reading. Without this script it is as readable, and a <meta> reads it again.
(() => {
  "use strict";
  const { written, late, refresh } = document.querySelector("main").dataset;
  const age = document.getElementById("age"), old = document.getElementById("old");
  const tell = () => {
    const seconds = Math.max(0, (Date.now() - Date.parse(written)) / 1000);
    age.textContent = seconds < 120 ? `(${Math.floor(seconds)} s ago)` : `(${Math.floor(seconds / 60)} min ago)`;
    old.hidden = seconds < Number(late);
    if (!old.hidden) document.querySelector("h1").className = "bad";
  };
  tell();
  setInterval(tell, 1000);
  setInterval(() => document.hidden || location.reload(), refresh * 1000);
})();
