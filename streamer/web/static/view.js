// What the page shows: state, level, figures, problems and dialogs. Knows the document, not the sound or the network.

import { STATES } from "./words.js";

const $ = (id) => document.getElementById(id);
const LIT = {
  listening: "heard",
  file: "heard",
  continuing: "made",
  waiting: "made",
  duet: "made",
  reconstruct: "made",
};

const RING = 20; // steps of the level

export class View {
  constructor() {
    this.shown = null;
    this.theme = stored("theme") ?? "";
    this.applyTheme();
  }

  // -- state ---------------------------------------------------------------------------------------------------------

  /** `live`: a session is wanted; `note` takes the place of the usual hint. */
  state(name, { live, note, open }) {
    const [title, hint] = STATES[name];
    const key = `${name} ${note ?? ""} ${live} ${open}`;
    if (key === this.shown) return;
    this.shown = key;
    text($("state"), title);
    text($("hint"), note ?? hint);
    document.body.dataset.state = name;
    document.body.dataset.lit = LIT[name] ?? "";
    document.body.classList.toggle("live", live);
    text($("power-label"), live ? "Stop" : "Start");
    for (const id of ["listen", "continue", "reset", "record"]) $(id).disabled = !open;
    $("listen").classList.toggle("on", LIT[name] === "heard");
    $("continue").classList.toggle("on", LIT[name] === "made");
    $("listen").setAttribute("aria-pressed", LIT[name] === "heard");
    $("continue").setAttribute("aria-pressed", LIT[name] === "made");
    if (live) $("invite").hidden = true;
  }

  /** The ring round the button: 0 to 1, in steps, since each change is painted. */
  level(value) {
    const step = Math.round(RING * Math.max(0, Math.min(1, value)));
    if (step === this.step) return;
    this.step = step;
    $("level").style.strokeDashoffset = 100 - (100 * step) / RING;
  }

  microphone(open, muted) {
    $("mute").disabled = !open;
    $("mute").setAttribute("aria-pressed", muted);
    text($("mute"), muted ? "Microphone is muted" : "Mute microphone");
  }

  // -- problems ------------------------------------------------------------------------------------------------------

  /** `again` mends it, perhaps; `about` is what `solved` takes it away by. */
  problem(words, again, about) {
    text($("problem-text"), words);
    $("problem").hidden = false;
    $("problem-again").hidden = !again;
    Object.assign(this, { again, about });
  }

  /** Take the problem away; one about something else stays. */
  solved(about = this.about) {
    if (about !== this.about) return;
    $("problem").hidden = true;
    text($("problem-text"), "");
  }

  // -- figures -------------------------------------------------------------------------------------------------------

  /** Numbers, or null where there is none yet. */
  figures({ sound, trip, buffer, prime, underruns, dropped, rtf, visitors, limit, picture }) {
    text($("f-sound"), milliseconds(sound));
    text($("f-trip"), milliseconds(trip));
    text($("f-buffer"), buffer == null ? "–" : `${Math.round(buffer)} / ${Math.round(prime)} ms`);
    text($("f-underruns"), underruns ?? "–");
    text($("f-dropped"), milliseconds(dropped));
    text($("f-rtf"), rtf == null ? "–" : rtf.toFixed(2));
    text($("f-visitors"), visitors == null ? "–" : `${visitors}${limit ? ` of ${limit}` : ""}`);
    text($("f-picture"), `${Math.round(1000 / picture.gap_p50)}/s, ${picture.draw_p95.toFixed(1)} ms`);
    $("f-underruns").classList.toggle("bad", underruns > 0);
    $("f-rtf").classList.toggle("bad", rtf > 1);
  }

  // -- file and recording --------------------------------------------------------------------------------------------

  file(name, part) {
    $("file-bar").hidden = name == null;
    if (name == null) return;
    text($("file-name"), name);
    $("file-progress").value = part;
  }

  recording(on, seconds) {
    $("record").setAttribute("aria-pressed", on);
    text($("record-label"), on ? `Recording ${clock(seconds)}` : "Record");
    $("download").disabled = on || seconds === 0;
    text($("download"), seconds && !on ? `Download ${clock(seconds)}` : "Download");
  }

  // -- theme and dialogs ---------------------------------------------------------------------------------------------

  /** As the system, then the other one, then the system's for good. */
  nextTheme() {
    const order = systemTheme() === "dark" ? ["", "light", "dark"] : ["", "dark", "light"];
    this.theme = order[(order.indexOf(this.theme) + 1) % order.length];
    store("theme", this.theme);
    this.applyTheme();
  }

  applyTheme() {
    document.documentElement.dataset.theme = this.theme || systemTheme();
    $("theme").setAttribute("aria-label", `Theme: ${this.theme || "as the system"}`);
    $("theme").title = $("theme").getAttribute("aria-label");
  }

  help() {
    if (!$("help-dialog").open) $("help-dialog").showModal();
  }

  /** Ask for the token; resolves to the text, or to null when the visitor does not want to. */
  askToken(words) {
    const dialog = $("token-dialog");
    text($("token-text"), words || "Whoever runs it can give you one.");
    $("token").value = "";
    if (!dialog.open) dialog.showModal();
    return new Promise((resolve) => {
      $("token-form").onsubmit = (event) => {
        event.preventDefault();
        dialog.onclose = null;
        dialog.close();
        resolve($("token").value);
      };
      $("token-cancel").onclick = () => dialog.close();
      dialog.onclose = () => resolve(null);
    });
  }
}

function systemTheme() {
  return matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
}

/** Storage may be forbidden; the page works without. */
export function stored(key, place = "localStorage") {
  try {
    return window[place].getItem(key);
  } catch {
    return null;
  }
}

export function store(key, value, place = "localStorage") {
  try {
    window[place].setItem(key, value);
  } catch {
    // private window: the value lasts as long as the page
  }
}

function text(element, words) {
  if (element.textContent !== String(words)) element.textContent = words;
}

function milliseconds(value) {
  return value == null ? "–" : `${Math.round(value)} ms`;
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}
