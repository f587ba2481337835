// The spectrum of a stream of ticks: four short-time spectra a tick, in bands that widen upwards. Pure.

import { RATE, TICK } from "./frames.js";

const SIZE = 1024; // 64 ms
const HOP = 160;
export const BANDS = 80;
export const COLUMNS = TICK / HOP;
const LOWEST = 50;
const QUIET = -80; // dB below full scale that is drawn as nothing
const LOUD = -14;

const WINDOW = Float32Array.from(
  { length: SIZE },
  (_, index) => 0.5 - 0.5 * Math.cos((2 * Math.PI * (index + 0.5)) / SIZE),
);
const EDGES = Float32Array.from(
  { length: BANDS + 1 },
  (_, band) => unmel((band / BANDS) * (mel(RATE / 2) - mel(LOWEST)) + mel(LOWEST)) * (SIZE / RATE),
);

function mel(hertz) {
  return Math.log(1 + hertz / 400);
}

function unmel(value) {
  return 400 * (Math.exp(value) - 1);
}

const COSINES = Float32Array.from({ length: SIZE / 2 }, (_, index) => Math.cos((2 * Math.PI * index) / SIZE));
const SINES = Float32Array.from({ length: SIZE / 2 }, (_, index) => -Math.sin((2 * Math.PI * index) / SIZE));
const REVERSED = Uint16Array.from({ length: SIZE }, (_, index) => {
  let value = 0;
  for (let bit = 1, place = SIZE >> 1; bit < SIZE; bit <<= 1, place >>= 1) if (index & bit) value |= place;
  return value;
});

function transform(real, imaginary) {
  for (let half = 1; half < SIZE; half <<= 1) {
    const stride = SIZE / (2 * half);
    for (let low = 0; low < SIZE; low += low % half === half - 1 ? half + 1 : 1) {
      const high = low + half;
      const turn = (low % half) * stride;
      const x = real[high] * COSINES[turn] - imaginary[high] * SINES[turn];
      const y = real[high] * SINES[turn] + imaginary[high] * COSINES[turn];
      real[high] = real[low] - x;
      imaginary[high] = imaginary[low] - y;
      real[low] += x;
      imaginary[low] += y;
    }
  }
}

export class Spectrum {
  constructor() {
    this.tail = new Float32Array(SIZE - HOP);
    this.real = new Float32Array(SIZE);
    this.imaginary = new Float32Array(SIZE);
  }

  /** A tick of samples in -1 to 1 -> `COLUMNS` times `BANDS` bytes, 0 for silence to 255; lowest band first. */
  step(samples) {
    const joined = new Float32Array(this.tail.length + TICK);
    joined.set(this.tail);
    joined.set(samples, this.tail.length);
    this.tail.set(joined.subarray(TICK));
    const out = new Uint8Array(COLUMNS * BANDS);
    if (joined.every((sample) => sample === 0)) return out;
    for (let column = 0; column < COLUMNS; column += 1) {
      this.powers(joined.subarray(column * HOP, column * HOP + SIZE));
      this.bands(out.subarray(column * BANDS, (column + 1) * BANDS));
    }
    return out;
  }

  powers(samples) {
    for (let index = 0; index < SIZE; index += 1) this.real[REVERSED[index]] = samples[index] * WINDOW[index];
    this.imaginary.fill(0);
    transform(this.real, this.imaginary);
  }

  bands(out) {
    for (let band = 0; band < BANDS; band += 1) {
      const first = Math.max(1, Math.round(EDGES[band]));
      const last = Math.max(first + 1, Math.round(EDGES[band + 1]));
      let most = 0;
      for (let bin = first; bin < last; bin += 1) most = Math.max(most, this.real[bin] ** 2 + this.imaginary[bin] ** 2);
      const level = 10 * Math.log10(most / (SIZE / 4) ** 2 + 1e-12);
      out[band] = Math.max(0, Math.min(255, (255 * (level - QUIET)) / (LOUD - QUIET)));
    }
  }
}
