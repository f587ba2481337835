// Capture: whatever comes in, at the context's rate, goes out as 16-bit ticks of 640 samples at 16 kHz. Silence counts
// too: the visitor's sound is the clock of the session, so a tick comes every 40 ms as long as the context runs.

import { Resampler } from "./resample.js";

const TICK = 640;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, 16000);
    this.silence = new Float32Array(128);
    this.tick = new Float32Array(TICK);
    this.filled = 0;
  }

  process(inputs) {
    this.resampler.push(inputs[0]?.[0] ?? this.silence);
    for (;;) {
      const got = this.resampler.pull(this.tick, this.filled);
      this.filled += got;
      if (this.filled < TICK) return true;
      this.send();
    }
  }

  send() {
    const samples = new Int16Array(TICK);
    for (let index = 0; index < TICK; index += 1) {
      samples[index] = Math.max(-32768, Math.min(32767, Math.round(this.tick[index] * 32768)));
    }
    this.filled = 0;
    this.port.postMessage(samples, [samples.buffer]);
  }
}

registerProcessor("capture", Capture);
