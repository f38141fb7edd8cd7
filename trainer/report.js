// Plays the sprite sheets of the page: a row of a sheet is a panel, a column a frame.
"use strict";
const FRAME_MS = 150;
const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;

function makePlayer(player) {
  const { frames, width, height, context } = player.dataset;
  const count = Number(frames), w = Number(width), h = Number(height), seen = Number(context);
  const sheet = player.querySelector("img");
  const panels = [...player.querySelectorAll(".panel")];
  const slider = player.querySelector("input");
  const time = player.querySelector(".time");
  const [back, play, on] = player.querySelectorAll("button");
  let frame = 0, timer = 0;

  function show(t) {
    frame = (t + count) % count;
    panels.forEach((panel, row) => {
      const says = panel.dataset.says;
      panel.classList.toggle("off", says === "seen" ? frame >= seen : says === "future" && frame < seen);
      panel.querySelector("canvas").getContext("2d").drawImage(sheet, frame * w, row * h, w, h, 0, 0, w, h);
    });
    const part = seen === 0 ? "" : frame < seen ? ", seen" : ", after it";
    slider.value = frame + 1;
    slider.setAttribute("aria-valuetext", `frame ${frame + 1} of ${count}${part}`);
    time.textContent = `${frame + 1} of ${count}`;
    player.dataset.frame = frame + 1;
  }

  function setPlaying(plays) {
    clearInterval(timer);
    timer = plays ? setInterval(() => show(frame + 1), FRAME_MS) : 0;
    play.textContent = plays ? "Pause" : "Play";
  }

  function step(by) {
    setPlaying(false);
    show(frame + by);
  }

  const keys = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), " ": () => setPlaying(!timer) };
  player.addEventListener("keydown", (event) => {
    const isPress = event.key === " " && event.target.tagName === "BUTTON"; // clicks by itself
    if (!keys[event.key] || isPress || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  back.addEventListener("click", () => step(-1));
  on.addEventListener("click", () => step(1));
  play.addEventListener("click", () => setPlaying(!timer));
  slider.addEventListener("input", () => step(Number(slider.value) - 1 - frame));

  sheet.decode().then(() => {
    player.querySelector(".sheet").hidden = true; // the whole sheet is for where no script runs
    for (const part of player.querySelectorAll(".panels, .controls")) part.hidden = false;
    show(0);
    setPlaying(!isCalm);
  });
}

document.querySelectorAll(".player").forEach(makePlayer);
