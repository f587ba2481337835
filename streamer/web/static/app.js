// The page: wires sound, connection, picture and controls together. The only module that knows them all.

import { GENERATED, HEARD, TURN, LAST } from "./frames.js";
import { MicrophoneError, Sound } from "./audio.js";
import { Controls } from "./controls.js";
import { FileError, decode, dropZone, saveFile, takeToken } from "./doors.js";
import { figures } from "./figures.js";
import { shortcuts } from "./keys.js";
import { Link } from "./link.js";
import { Piano, Voices } from "./piano.js";
import { Plot } from "./plot.js";
import { Timeline } from "./timeline.js";
import { View, store } from "./view.js";
import { Recorder } from "./wav.js";
import { CLOSED, MICROPHONE, RETRY, SOUND, noteOf } from "./words.js";

const $ = (id) => document.getElementById(id);
const [FIGURES_EVERY, GAP] = [250, 400]; // ms; a gap in the sound that is no wait yet
const UNDER_WAY = 3; // ticks from a sound's source to the link

export class App {
  constructor() {
    this.view = new View();
    this.recorder = new Recorder();
    this.timeline = new Timeline((...tick) => this.recorder.add(...tick));
    this.sound = new Sound({
      tick: (samples) => this.tick(samples),
      played: (report) => this.played(report),
      microphoneGone: () => this.microphoneGone(),
      context: (state) => this.contextState(state),
    });
    this.link = new Link(
      new URL("ws", location.href.replace(/^http/, "ws").replace(/[?#].*/, "")),
      () => this.hello(),
      {
        state: (state) => this.linkState(state),
        welcome: (said) => this.welcome(said),
        frame: (frame) => this.frame(frame),
      },
    );
    this.controls = new Controls({
      session: () => this.reset(),
      sampling: (values) => this.link.command("set", values),
      echo: () => this.microphone && this.openMicrophone(),
      volume: (value) => this.sound.volume && (this.sound.volume.gain.value = value),
    });
    this.voices = new Voices(this.sound);
    this.piano = new Piano(
      $("piano"),
      { down: (note) => this.note(note), up: (note) => this.voices.up(note) },
      () => $("typing").checked,
    );
    this.plot = new Plot($("tape"), this.timeline);
    this.forget();
    Object.assign(this, {
      live: false,
      microphone: false,
      muted: false,
      pending: null,
      fileName: null,
      triggerIn: 0,
      soundedAt: -GAP,
    });
    this.token = takeToken();
    this.listen();
    this.show();
  }

  /** What the server has said of a session that is over. */
  forget() {
    Object.assign(this, { status: {}, said: {}, generating: false, firstAt: null, delay: null });
  }

  listen() {
    const click = (id, action) => $(id).addEventListener("click", action);
    const buttons = { listen: "listenNow", continue: "continueNow", file: "choose" };
    for (const id of ["power", "listen", "continue", "mute", "reset", "record", "download", "file", "help"])
      click(id, () => this[buttons[id] ?? id]());
    click("file-stop", () => this.sound.stopFile());
    click("theme", () => (this.view.nextTheme(), this.plot.retheme()));
    click("help-close", () => $("help-dialog").close());
    click("problem-close", () => this.view.solved());
    click("problem-again", () => (this.view.solved(), this.view.again?.()));
    $("file-input").addEventListener("change", ({ target }) => (this.play(target.files[0]), (target.value = "")));
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => (this.view.applyTheme(), this.plot.retheme()));
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.microphoneBack());
    window.addEventListener("pagehide", () => this.live && this.stop());
    shortcuts(
      (name) => this[name](),
      () => $("typing").checked,
    );
    dropZone((file) => this.play(file));
    setInterval(() => this.showFigures(), FIGURES_EVERY);
  }

  // -- beginning and ending ------------------------------------------------------------------------------------------

  power() {
    return this.live ? this.stop() : this.begin(true);
  }

  /** Start the sound and the session; with the microphone if wanted. */
  async begin(microphone) {
    const trouble = await this.sound.start();
    if (trouble) return this.view.problem(SOUND[trouble], () => this.begin(microphone), "sound");
    this.sound.volume.gain.value = Number($("volume").value);
    if (!this.live) {
      this.live = true;
      this.view.solved();
      this.link.connect();
      this.plot.run(() => this.live);
    }
    if (microphone) await this.openMicrophone();
    this.voices.warm();
  }

  stop() {
    Object.assign(this, { live: false, microphone: false, pending: null });
    this.link.close();
    this.sound.stop();
    if (this.recorder.on) this.record();
    this.forget();
    this.show();
  }

  async openMicrophone() {
    this.microphone = true;
    try {
      await this.sound.openMicrophone(this.controls.echo);
      if (!this.live) this.sound.closeMicrophone();
    } catch (error) {
      if (!(error instanceof MicrophoneError)) throw error;
      this.microphone = false;
      this.view.problem(MICROPHONE[error.kind], () => this.begin(true), "microphone");
    }
    this.show();
  }

  microphoneGone() {
    this.view.problem(MICROPHONE.gone, null, "microphone");
    this.show();
  }

  async microphoneBack() {
    if (!this.live || !this.microphone || this.sound.microphone) return;
    const devices = await navigator.mediaDevices.enumerateDevices();
    if (!devices.some((device) => device.kind === "audioinput")) return;
    this.view.solved("microphone");
    await this.openMicrophone();
  }

  contextState(state) {
    if (state !== "running" && this.live) this.view.problem(SOUND.silent, () => this.begin(false), "sound");
  }

  // -- the connection ------------------------------------------------------------------------------------------------

  hello() {
    return { token: this.token || undefined, ...this.controls.session() };
  }

  reset() {
    if (!this.link.open) return;
    this.sound.restart();
    this.link.reset(this.controls.session());
    this.timeline.newSession();
    this.forget();
  }

  welcome(said) {
    this.view.solved("connection");
    this.forget();
    this.said = said;
    this.sound.restart();
    this.timeline.newSession();
    Object.assign(this.plot, { codebook: said.codebook ?? 1024, coarse: said.coarse_levels ?? 4 });
    const echoChanges = this.controls.welcome(said);
    if (echoChanges && this.sound.microphone) this.openMicrophone();
    this.controls.changes().forEach((values) => this.link.command("set", values));
    this.show();
    if (this.pending) this.playPending();
  }

  async linkState(state) {
    const { name, reason, text } = state;
    if (name !== "open") {
      this.status = {};
      this.sound.restart();
    }
    if (name === "retrying") {
      this.view.problem(
        `${text || `${RETRY[reason]}.`} It is tried again by itself.`,
        () => this.link.connect(),
        "connection",
      );
    } else if (name === "closed" && reason === "token") await this.askToken(text);
    else if (name === "closed" && reason) {
      this.stop();
      this.view.problem([CLOSED[reason], text].filter(Boolean).join(" "), () => this.begin(true));
    }
    this.show();
  }

  async askToken(text) {
    const wrong = Boolean(this.token);
    const token = await this.view.askToken(wrong ? "That one was not right. Try another." : text);
    if (token === null) {
      this.stop();
      return this.view.problem(CLOSED.token, () => this.begin(true));
    }
    this.token = token;
    store("token", token, "sessionStorage");
    this.link.connect();
  }

  frame(frame) {
    if (frame.kind === "audio") this.received(frame);
    else if (frame.kind === "control") this.told(frame);
    else if (frame.kind !== "coarse" && frame.kind !== "tick") this.timeline.tokens(frame);
  }

  told({ meta, epoch }) {
    if (meta.command === "status") this.status = meta;
    else if (meta.command === "interrupt") this.sound.interrupt(epoch);
    else if (meta.command === "refused") this.view.problem(meta.text);
    if (meta.command === "interrupt") this.generating = false;
    this.show();
  }

  received({ data, flags, epoch, position }) {
    if (flags & LAST || (flags & TURN && flags & GENERATED)) {
      this.generating = false;
      return this.sound.endTurn();
    }
    const plays = flags & (this.said.mode === "reconstruct" ? HEARD | GENERATED : GENERATED);
    if (!plays || data.length === 0) return undefined;
    if (!this.generating) this.firstAt = performance.now();
    this.generating = true;
    return this.sound.put(data, epoch, position);
  }

  // -- each 40 ms ----------------------------------------------------------------------------------------------------

  get made() {
    return this.status.state === "continuing";
  }

  tick(samples) {
    if (!this.live) return;
    this.link.tick(samples);
    const counts = this.link.open && !this.made;
    this.timeline.heard(samples, counts);
    if (this.triggerIn > 0 && (this.triggerIn -= 1) === 0) this.link.command("trigger");
    let peak = 0;
    for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
    if (!this.made) this.view.level((peak / 32768) ** 0.5);
    if (this.sound.file) this.view.file(this.fileName, this.filePart());
  }

  played(report) {
    const { samples, position } = report;
    if (samples) this.soundedAt = performance.now();
    this.timeline.played(samples, position);
    if (samples && this.firstAt !== null) {
      this.delay = performance.now() - this.firstAt + 1000 * this.sound.outputLatency;
      this.firstAt = null;
    }
    if (samples && this.made)
      this.view.level(samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0) ** 0.5);
    if (this.recorder.full && this.recorder.on) this.record();
  }

  // -- what the visitor does -----------------------------------------------------------------------------------------

  continueNow() {
    this.triggerIn = this.sound.file ? UNDER_WAY : 0; // else a file's last ticks were a visitor who speaks up
    this.sound.stopFile();
    if (!this.triggerIn) this.link.command("trigger");
  }

  listenNow() {
    this.triggerIn = 0;
    this.link.command("listen");
  }

  pass() {
    return this.made ? this.listenNow() : this.continueNow();
  }

  choose() {
    $("file-input").click();
  }

  help() {
    this.view.help();
  }

  mute() {
    if (!this.sound.microphone) return;
    this.muted = !this.muted;
    this.sound.mute(this.muted);
    this.view.microphone(true, this.muted);
  }

  async note(note) {
    if (!this.live || !this.sound.running) await this.begin(false);
    this.voices.down(note);
    if (this.piano.sounds(note)) return;
    setTimeout(() => this.piano.sounds(note) || this.voices.up(note), 200); // a quick first tap
  }

  async play(file) {
    if (!file) return;
    await this.begin(false);
    if (!this.sound.context) return;
    try {
      this.pending = { buffer: await decode(file, this.sound.context), name: file.name };
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      return this.view.problem(error.message);
    }
    if (this.link.open) await this.playPending();
  }

  async playPending() {
    const { buffer, name } = this.pending;
    this.pending = null;
    this.fileName = name;
    this.listenNow();
    const ending = this.sound.playFile(buffer);
    this.show();
    const whole = await ending;
    this.view.file(this.sound.file ? this.fileName : null, 0);
    if (whole) this.triggerIn = UNDER_WAY;
    this.show();
  }

  filePart() {
    const { started, seconds } = this.sound.file;
    return Math.min(1, (this.sound.context.currentTime - started) / seconds);
  }

  record() {
    const { recorder, said } = this;
    if (!recorder.on && !this.link.open) return;
    if (recorder.on) {
      const { bundle, mode, seed, seconds } = said;
      this.taken = { bundle, mode, seed, seconds: seconds ?? undefined, ...this.controls.flatSampling() };
    } else recorder.clear();
    recorder.on = !recorder.on;
    this.view.recording(recorder.on, recorder.seconds);
  }

  download() {
    saveFile(this.recorder.file(this.taken), `audiolm-${this.taken.bundle ?? "page"}.wav`);
  }

  // -- showing -------------------------------------------------------------------------------------------------------

  get state() {
    const { name, reason, again } = this.link.state;
    if (!this.live) return this.said.bundle || this.sound.context ? "stopped" : "idle";
    if (name === "connecting" || name === "closed")
      return again ? "reconnecting" : this.status.state === "loading" ? "loading" : "connecting";
    if (name === "retrying") return reason === "full" ? "full" : "reconnecting";
    if (this.made) return performance.now() - this.soundedAt < GAP ? "continuing" : "waiting";
    if (this.sound.file) return "file";
    return this.said.mode in { duet: 1, reconstruct: 1 } ? this.said.mode : "listening";
  }

  show() {
    const { open } = this.link;
    this.view.state(this.state, { live: this.live, open, note: open ? noteOf(this.status) : undefined });
    this.view.microphone(Boolean(this.sound.microphone), this.muted);
    if (!this.sound.file) this.view.file(null);
  }

  stats() {
    const { state, link, status, delay } = this;
    return figures({ state, link, status, report: this.sound.report, ours: delay, picture: this.plot.stats() });
  }

  showFigures() {
    if (!this.live) return;
    const stats = this.stats();
    this.view.figures(stats);
    this.show();
    if (this.recorder.on) this.view.recording(true, this.recorder.seconds);
    this.reports = (this.reports ?? 0) + 1;
    if (this.reports % 4 === 0 && this.link.open) this.report(stats);
  }

  report({ underruns, buffer, sound }) {
    const since = underruns - (this.reported ?? 0);
    this.reported = underruns;
    this.link.command("report", { underruns: Math.max(0, since), buffer_ms: buffer, latency_ms: sound ?? undefined });
  }
}
