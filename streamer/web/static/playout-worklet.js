// Play-out: 16 kHz from the jitter buffer to the context's rate. What was really played goes back, tick by tick, with
// counts.
//
// The page's capture and play-out run by one clock, so the buffer's level only changes with the network. A level that
// stays high is brought down by playing up to 0.4 % faster, which is not heard; only a flood is skipped (jitter.js).

import { JitterBuffer } from "./jitter.js";
import { Resampler } from "./resample.js";

const TICK = 640;
const FASTEST = 0.004;

class Playout extends AudioWorkletProcessor {
  constructor() {
    super();
    this.buffer = new JitterBuffer();
    this.resampler = new Resampler(16000, sampleRate);
    this.step = this.resampler.step;
    this.small = new Float32Array(512);
    this.level = 0;
    this.newTick();
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take(message) {
    if (message.samples) this.buffer.put(message.samples, message.epoch, message.position);
    else if (message.what === "turn") this.buffer.endTurn();
    else if (message.what === "interrupt") this.buffer.interrupt(message.epoch);
    else if (message.what === "restart") this.buffer.restart();
  }

  process(_inputs, outputs) {
    const [out] = outputs[0];
    this.correct();
    for (let lacking = this.resampler.lacks(out.length); lacking > 0; lacking -= 512) {
      const block = this.small.subarray(0, Math.min(512, lacking));
      this.keep(block, this.buffer.take(block));
      this.resampler.push(block);
    }
    this.resampler.pull(out);
    for (let channel = 1; channel < outputs[0].length; channel += 1) outputs[0][channel].set(out);
    return true;
  }

  correct() {
    const { level, prime, playing } = this.buffer;
    this.level += 0.002 * (level - this.level); // over 1.3 s, many ticks
    const excess = playing ? (this.level - prime - TICK / 2) / 16000 : 0;
    this.resampler.step = this.step * (1 + Math.max(0, Math.min(FASTEST, excess * 0.05)));
  }

  /** Collect what is played; send it each 640 samples. */
  keep(block, position) {
    let done = 0;
    while (done < block.length) {
      const count = Math.min(block.length - done, TICK - this.filled);
      this.played.set(block.subarray(done, done + count), this.filled);
      if (this.position < 0 && position >= 0) this.position = position + done - this.filled;
      this.filled += count;
      done += count;
      if (this.filled === TICK) this.report();
    }
  }

  report() {
    const { level, prime, underruns, lost, playing } = this.buffer;
    const samples = this.position >= 0 ? this.played : null;
    const message = { level, prime, underruns, lost, playing, position: this.position, samples };
    this.port.postMessage(message, samples ? [samples.buffer] : []);
    this.newTick();
  }

  newTick() {
    this.played = new Float32Array(TICK);
    this.filled = 0;
    this.position = -1;
  }
}

registerProcessor("playout", Playout);
