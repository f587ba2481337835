// The on-screen piano: two octaves, for mouse, touch and keyboards, any number of notes at once.
//
// It draws its keys as buttons (one stop for the Tab key, arrows within), and calls `player.down(note)`,
// `player.up(note)`. `Voices` is such a player: it plays the notes into a Web Audio node.

import { strike } from "./tone.js";

const LOWEST = 60; // C4
const NAMES = ["C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B"];
const OCTAVES = [
  ["KeyZ", "KeyS", "KeyX", "KeyD", "KeyC", "KeyV", "KeyG", "KeyB", "KeyH", "KeyN", "KeyJ", "KeyM"],
  ["KeyQ", "Digit2", "KeyW", "Digit3", "KeyE", "KeyR", "Digit5", "KeyT", "Digit6", "KeyY", "Digit7", "KeyU"],
];
const NOTE_OF = new Map(OCTAVES.flat().map((code, index) => [code, LOWEST + index]));
const RELEASE = 0.09; // seconds

export class Voices {
  /** `sound.own` and `sound.context` exist once it has started. */
  constructor(sound) {
    this.sound = sound;
    this.tones = new Map();
    this.voices = new Map();
  }

  tone(note) {
    if (!this.tones.has(note)) {
      const { sampleRate } = this.sound.context;
      const samples = strike(note, sampleRate);
      const buffer = new AudioBuffer({ length: samples.length, sampleRate });
      buffer.copyToChannel(samples, 0);
      this.tones.set(note, buffer);
    }
    return this.tones.get(note);
  }

  /** Make all notes, one at a time, while nothing else is to be done. */
  warm() {
    const missing = [...NOTE_OF.values()].find((note) => !this.tones.has(note));
    if (missing === undefined) return;
    this.tone(missing);
    setTimeout(() => this.warm(), 30);
  }

  down(note) {
    if (!this.sound.context) return;
    this.up(note);
    const { context } = this.sound;
    const source = new AudioBufferSourceNode(context, { buffer: this.tone(note) });
    const gain = new GainNode(context, { gain: 0.4 });
    source.connect(gain).connect(this.sound.own);
    this.sound.hold();
    source.onended = () => {
      gain.disconnect();
      this.sound.release();
      if (this.voices.get(note)?.source === source) this.voices.delete(note);
    };
    source.start();
    this.voices.set(note, { source, gain });
  }

  up(note) {
    const voice = this.voices.get(note);
    if (!voice) return;
    this.voices.delete(note);
    const now = this.sound.context.currentTime;
    voice.gain.gain.setTargetAtTime(0, now, RELEASE / 3);
    voice.source.stop(now + 2 * RELEASE);
  }
}

export class Piano {
  /** Fills `root` with keys; `typing()` says whether the computer's keys play. */
  constructor(root, player, typing) {
    Object.assign(this, { root, player, typing });
    this.keys = new Map();
    this.pointers = new Map();
    this.held = new Map(); // code of a computer key -> note
    OCTAVES.forEach((codes, octave) => root.append(this.octave(codes, octave)));
    this.reachable(LOWEST);
    this.listen();
  }

  octave(codes, octave) {
    const group = document.createElement("div");
    group.className = "octave";
    codes.forEach((code, index) => {
      const note = LOWEST + 12 * octave + index;
      const key = document.createElement("button");
      key.type = "button";
      key.className = NAMES[index].includes("sharp") ? "key black" : "key white";
      key.dataset.note = note;
      key.dataset.step = index;
      key.tabIndex = -1;
      key.setAttribute("aria-label", `${NAMES[index]} ${4 + octave}`);
      const letter = document.createElement("span");
      letter.textContent = code.replace(/^(Key|Digit)/, "");
      letter.setAttribute("aria-hidden", "true");
      key.append(letter);
      this.keys.set(note, key);
      group.append(key);
    });
    return group;
  }

  listen() {
    const { root } = this;
    root.addEventListener("pointerdown", (event) => this.pointer(event));
    root.addEventListener("pointermove", (event) => this.pointers.has(event.pointerId) && this.pointer(event));
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, (event) => this.lift(event));
    root.addEventListener("contextmenu", (event) => event.preventDefault());
    root.addEventListener("keydown", (event) => this.arrows(event));
    root.addEventListener("keyup", (event) => this.codeUp(event.code));
    document.addEventListener("keydown", (event) => this.letter(event));
    document.addEventListener("keyup", (event) => this.codeUp(event.code));
    window.addEventListener("blur", () => this.allUp());
  }

  // -- pointers: a finger slides from key to key ---------------------------------------------------------------------

  pointer(event) {
    if (event.type === "pointerdown" && event.button !== 0) return;
    const place = document.elementFromPoint(event.clientX, event.clientY)?.closest(".key");
    const note = place && this.root.contains(place) ? Number(place.dataset.note) : null;
    const before = this.pointers.get(event.pointerId);
    if (event.type === "pointerdown") event.target.releasePointerCapture?.(event.pointerId);
    if (before === note) return;
    if (before != null) this.up(before);
    this.pointers.set(event.pointerId, note);
    if (note != null) this.down(note);
  }

  lift(event) {
    const note = this.pointers.get(event.pointerId);
    if (!this.pointers.delete(event.pointerId)) return;
    if (note != null) this.up(note);
  }

  // -- keyboards -----------------------------------------------------------------------------------------------------

  letter(event) {
    const note = NOTE_OF.get(event.code);
    if (note === undefined || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!this.typing() || isField(event.target)) return;
    event.preventDefault();
    this.held.set(event.code, note);
    this.down(note);
  }

  codeUp(code) {
    const note = this.held.get(code);
    if (!this.held.delete(code)) return;
    this.up(note);
  }

  arrows(event) {
    const now = Number(event.target.dataset?.note);
    const move = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    const next = { Home: LOWEST, End: LOWEST + NOTE_OF.size - 1 }[event.key] ?? now + move;
    if (this.keys.has(next)) {
      event.preventDefault();
      this.reachable(next);
      this.keys.get(next).focus();
    } else if ((event.key === "Enter" || event.key === " ") && !event.repeat) {
      event.preventDefault();
      this.held.set(event.code, now);
      this.down(now);
    }
  }

  reachable(note) {
    this.keys.forEach((key, each) => {
      key.tabIndex = each === note ? 0 : -1;
    });
  }

  sounds(note) {
    return this.keys.get(note).classList.contains("down");
  }

  down(note) {
    this.keys.get(note).classList.add("down");
    this.player.down(note);
  }

  up(note) {
    this.keys.get(note).classList.remove("down");
    this.player.up(note);
  }

  allUp() {
    [...this.held.values(), ...this.pointers.values()].forEach((note) => note != null && this.up(note));
    this.held.clear();
    this.pointers.clear();
  }
}

/** Whether keys typed there belong to that place. */
export function isField(target) {
  return (
    target.matches?.("input:not([type=checkbox]):not([type=range]):not([type=radio]), select, textarea, dialog *") ??
    false
  );
}
