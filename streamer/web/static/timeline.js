// What sounded when: the last ticks of heard and generated sound with their spectra and tokens, ready to be drawn.
//
// One tick of 40 ms is one record. The visitor's capture makes the ticks; what was played meanwhile and the tokens,
// which come a little later, are added to them. Bounded; knows nothing of canvases. `changed` names the ticks to draw
// again.

import { GENERATED, RATE, TICK, TURN } from "./frames.js";
import { Spectrum } from "./spectrum.js";

export const SHAPES = 8; // pairs of lowest and highest sample a tick
export const FRAMES = 2; // acoustic frames a tick
const PAUSE = 14; // ticks without tokens of heard sound: longer than any pause inside a phrase
const LAG = 2; // ticks from the end of a tick until its tokens are here, when nothing holds them up
const AWAITED = 64; // ticks of tokens that wait for their sound
const APART = 25; // ticks that one side may be ahead of the other

export class Timeline {
  /** `settled(samples, counts, played)` is told of each tick once both sides of it are known. */
  constructor(settled, kept = 1024) {
    Object.assign(this, { settled, kept });
    this.count = 0;
    this.records = new Array(kept);
    this.changed = new Set();
    this.spectra = { heard: new Spectrum(), made: new Spectrum() };
    this.newSession();
  }

  /** Positions count from 0 again. */
  newSession() {
    this.next = this.count; // the first tick of which it is not known yet what was played
    this.awaited = new Map();
    this.arrived = [];
    this.newPhrase();
  }

  newPhrase() {
    this.phrase = { offset: Infinity, last: this.count, tokens: [] };
  }

  get(index) {
    const record = this.records[((index % this.kept) + this.kept) % this.kept];
    return record?.index === index ? record : null;
  }

  /** A tick of captured sound; `counts` says whether the model takes it in. */
  heard(samples, counts) {
    const floats = Float32Array.from(samples, (value) => value / 32768);
    const record = { index: this.count, counts, heard: null, made: null, semantic: -1, stack: null };
    Object.assign(record, { ownTokens: true, samples });
    record.heard = { shape: shapeOf(floats), bands: this.spectra.heard.step(floats) };
    this.records[this.count % this.kept] = record;
    this.count += 1;
    this.touch(record);
    this.pair();
  }

  /** What was played during a tick; `samples` is null in silence. */
  played(samples, position) {
    this.arrived.push({ samples, position });
    this.pair();
  }

  /** Both sides tick by one clock, but a busy page takes their messages in bursts: so first goes with first. */
  pair() {
    while (this.arrived.length > 0 && this.next < this.count) {
      const record = this.get(this.next);
      this.next += 1;
      this.attach(record, this.arrived.shift());
    }
    if (this.arrived.length > APART) this.arrived.shift();
    if (this.count - this.next > APART) this.next += 1;
  }

  attach(record, { samples, position }) {
    this.settled(record.samples, record.counts, samples);
    record.samples = null;
    const bands = this.spectra.made.step(samples ?? NOTHING);
    if (!samples) return;
    record.made = { shape: shapeOf(samples), bands };
    const tick = Math.round(position / TICK);
    const tokens = this.awaited.get(tick);
    this.awaited.delete(tick);
    if (tokens) Object.assign(record, tokens, { ownTokens: false });
    this.touch(record);
  }

  /** A frame of tokens: `semantic`, or stacks of levels (`acoustic`, `fine`). */
  tokens(frame) {
    if (frame.flags & TURN && !(frame.flags & GENERATED)) this.newPhrase();
    if (frame.data.length === 0) return;
    const levels = frame.shape[1] ?? 1;
    const per = frame.kind === "semantic" ? 1 : FRAMES * levels;
    for (let at = 0; at + per <= frame.data.length; at += per) {
      const samples = (at / levels) * (RATE / frame.rate);
      const tick = Math.floor((frame.position + samples) / TICK);
      const data = frame.data.slice(at, at + per);
      const values = frame.kind === "semantic" ? { semantic: data[0] } : { stack: { levels, data } };
      if (frame.flags & GENERATED) this.await(tick, values);
      else this.take(tick, values);
    }
  }

  await(tick, values) {
    this.awaited.set(tick, { ...this.awaited.get(tick), ...values });
    if (this.awaited.size > AWAITED) this.awaited.delete(this.awaited.keys().next().value);
  }

  /**
   * Tokens of heard sound. The session's clock stands still in silence, so where they belong is told by when they
   * come: nothing is heard before it was played, and what was held up least says where the phrase began.
   */
  take(tick, values) {
    if (this.count - this.phrase.last > PAUSE) this.newPhrase();
    const { phrase } = this;
    phrase.last = this.count;
    phrase.tokens.push([tick, values]);
    if (phrase.tokens.length > AWAITED) phrase.tokens.shift();
    const offset = this.count - 1 - LAG - tick;
    if (offset >= phrase.offset) return this.place(phrase.offset + tick, values);
    phrase.offset = offset;
    phrase.tokens.forEach(([each, before]) => this.place(offset + each, before));
  }

  place(index, values) {
    const record = this.get(index);
    if (!record?.ownTokens) return;
    Object.assign(record, values);
    this.touch(record);
  }

  touch(record) {
    this.changed.add(record.index);
    if (this.changed.size > this.kept) this.changed.delete(this.changed.values().next().value);
  }
}

const NOTHING = new Float32Array(TICK);

function shapeOf(samples) {
  const shape = new Float32Array(2 * SHAPES);
  const width = TICK / SHAPES;
  for (let part = 0; part < SHAPES; part += 1) {
    let [low, high] = [0, 0];
    for (let index = part * width; index < (part + 1) * width; index += 1) {
      low = Math.min(low, samples[index]);
      high = Math.max(high, samples[index]);
    }
    shape[2 * part] = low;
    shape[2 * part + 1] = high;
  }
  return shape;
}
