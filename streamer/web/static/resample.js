// A stateful resampler for worklets: windowed sinc, any ratio, no seam between blocks. Knows nothing of sound devices.
//
// The output at time t is the sum of input samples near t, weighted by a sinc under a Kaiser window, as wide as the
// lower of the two rates asks. The same samples come out whatever the blocks in which they went in.

const CROSSINGS = 12; // zero crossings on each side: delay 12 / lower rate, 0.75 ms at 16 kHz
const STEPS = 256; // table entries between two crossings, interpolated linearly
const BETA = 8;
const ROLL_OFF = 0.94; // of the lower Nyquist

function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; k < 32; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function makeTable() {
  const table = new Float32Array(CROSSINGS * STEPS + 2);
  for (let index = 0; index <= CROSSINGS * STEPS; index += 1) {
    const x = index / STEPS;
    const angle = Math.PI * x * ROLL_OFF;
    const sinc = x === 0 ? 1 : Math.sin(angle) / angle;
    table[index] = (ROLL_OFF * sinc * bessel(BETA * Math.sqrt(Math.max(0, 1 - (x / CROSSINGS) ** 2)))) / bessel(BETA);
  }
  return table;
}

const TABLE = makeTable();

export class Resampler {
  /** From one rate to another, in Hz. `step` may be changed a little while it runs (clock drift). */
  constructor(from, to) {
    this.step = from / to;
    this.narrow = Math.min(1, to / from);
    this.half = Math.ceil(CROSSINGS / this.narrow);
    this.buffer = new Float32Array(4096 + 4 * this.half);
    this.reset();
  }

  reset() {
    this.buffer.fill(0);
    this.filled = this.half; // silence before the first sample
    this.time = this.half;
  }

  /** How many input samples `pull(count)` still lacks. */
  lacks(count) {
    const last = Math.floor(this.time + (count - 1) * this.step) + this.half + 1;
    return Math.max(0, last + 1 - this.filled);
  }

  /** Take samples in; the caller pulls soon, so that the buffer stays short. */
  push(samples) {
    if (this.filled + samples.length > this.buffer.length) this.makeRoom(samples.length);
    this.buffer.set(samples, this.filled);
    this.filled += samples.length;
  }

  /** Fill `out` from `start` on, as far as the input reaches; return how many samples were written. */
  pull(out, start = 0) {
    let count = 0;
    while (start + count < out.length && Math.floor(this.time) + this.half + 1 < this.filled) {
      out[start + count] = this.at(this.time);
      this.time += this.step;
      count += 1;
    }
    this.forget();
    return count;
  }

  at(time) {
    const centre = Math.floor(time);
    const scale = this.narrow * STEPS;
    let sum = 0;
    for (let index = centre - this.half + 1; index <= centre + this.half; index += 1) {
      const place = Math.abs(time - index) * scale;
      const entry = Math.floor(place);
      if (entry >= CROSSINGS * STEPS) continue;
      const weight = TABLE[entry] + (place - entry) * (TABLE[entry + 1] - TABLE[entry]);
      sum += this.buffer[index] * weight;
    }
    return sum * this.narrow;
  }

  forget() {
    const used = Math.min(Math.floor(this.time) - this.half, this.filled);
    if (used < 2048) return;
    this.buffer.copyWithin(0, used, this.filled);
    this.filled -= used;
    this.time -= used;
  }

  makeRoom(count) {
    const larger = new Float32Array(2 * (this.filled + count));
    larger.set(this.buffer.subarray(0, this.filled));
    this.buffer = larger;
  }
}
