// The connection: one WebSocket, frames both ways, a hello, a heartbeat, and coming back by itself.
//
// Knows nothing of sound. States: "closed", "connecting", "open" (welcomed), "retrying" (with a reason and when).
// Nothing is queued while it is down: sound that cannot be sent now is dropped and counted.

import { FrameError, control, pack, sound, unpack, TICK } from "./frames.js";

const MOST_BUFFERED = 65536; // bytes, two seconds of sound: what a stalled network may hold back
const PING_EVERY = 1000;
const SILENT = 8000; // ms without anything from the server: taken for lost
const SLOWEST = 8000;
const FULL_EVERY = 5500;
const BY_ITSELF = new Set(["lost", "silent", "full", "busy", "slow", "bye"]); // trying again may mend only these

export class Link {
  /** `hello()` gives the values of the hello; `on.state(state)`, `on.frame(frame)`, `on.welcome(meta)`. */
  constructor(url, hello, on) {
    Object.assign(this, { url, hello, on });
    this.state = { name: "closed" };
    this.socket = null;
    this.attempts = 0;
    this.dropped = 0;
    this.refused = 0;
    this.roundTrip = null;
    this.codebook = 1024;
    addEventListener("online", () => this.state.name === "retrying" && this.connect());
  }

  get open() {
    return this.state.name === "open";
  }

  connect() {
    this.wanted = true;
    clearTimeout(this.timer);
    this.drop();
    this.become({ name: "connecting", again: this.attempts > 0 });
    Object.assign(this, { position: 0, seq: 0, resets: 0 });
    this.error = null;
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.send(control("hello", { version: 1, ...this.hello() }));
    socket.onmessage = ({ data }) => this.take(data);
    socket.onclose = (event) => this.closed(event);
    this.socket = socket;
    this.heardAt = performance.now();
    this.heart = setInterval(() => this.beat(), PING_EVERY);
  }

  /** Leave for good, politely. */
  close() {
    this.wanted = false;
    clearTimeout(this.timer);
    if (this.socket?.readyState === WebSocket.OPEN) this.send(control("bye"));
    this.drop();
    this.attempts = 0;
    this.become({ name: "closed" });
  }

  drop() {
    clearInterval(this.heart);
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }

  become(state) {
    this.state = state;
    this.on.state(state);
  }

  // -- sending -------------------------------------------------------------------------------------------------------

  send(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(pack(frame));
  }

  command(name, values) {
    if (this.open) this.send(control(name, values));
  }

  /** End the session and begin another on the same connection. */
  reset(values) {
    if (!this.open) return;
    this.command("reset", values);
    this.resets += 1; // until it welcomes again the server takes no sound
  }

  /** One tick of the visitor's sound; what cannot be sent now is dropped. */
  tick(samples) {
    if (!this.open || this.resets) return;
    if (this.socket.bufferedAmount > MOST_BUFFERED) this.dropped += 1;
    else {
      this.send(sound(samples, this.position, this.seq));
      this.seq += 1;
    }
    this.position += TICK;
  }

  beat() {
    if (performance.now() - this.heardAt > SILENT) {
      this.drop();
      this.retry("silent");
    } else if (this.open) this.command("ping", { at: performance.now() });
  }

  // -- receiving -----------------------------------------------------------------------------------------------------

  take(data) {
    this.heardAt = performance.now();
    let frame;
    try {
      frame = unpack(data, this.codebook);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.refused += 1;
      return;
    }
    if (frame.kind !== "control") return this.on.frame(frame);
    const { command, ...values } = frame.meta;
    if (command === "welcome") this.welcomed(values);
    else if (command === "pong") this.roundTrip = performance.now() - Number(values.at);
    else if (command === "error") this.error = values;
    else this.on.frame(frame);
  }

  welcomed(values) {
    this.attempts = 0;
    this.resets = Math.max(0, this.resets - 1);
    this.codebook = Math.max(values.codebook ?? 1024, values.semantic_codebook ?? 0);
    this.become({ name: "open" });
    this.on.welcome(values);
  }

  closed(event) {
    this.drop();
    const code = this.error?.code ?? CLOSE_CODES[event.code] ?? "lost";
    if (!this.wanted) return;
    if (BY_ITSELF.has(code)) return this.retry(code, this.error?.text);
    this.wanted = false;
    this.become({ name: "closed", reason: code, text: this.error?.text });
  }

  retry(reason, text) {
    this.attempts += 1;
    const full = reason === "full";
    const backOff = Math.min(SLOWEST, 500 * 2 ** (this.attempts - 1));
    const wait = full ? FULL_EVERY : backOff * (0.75 + 0.5 * Math.random()); // not everybody at the same moment
    this.become({ name: "retrying", reason, text, at: performance.now() + wait });
    this.timer = setTimeout(() => this.connect(), wait);
  }
}

const CLOSE_CODES = {
  1001: "bye",
  1012: "bye",
  4001: "full",
  4002: "token",
  4004: "limit",
  4005: "bad_frame",
  4006: "failed",
  4007: "busy",
  4008: "slow",
};
