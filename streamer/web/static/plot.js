// The tape: waveform, spectrum and tokens of the last seconds, heard and generated in their own colours.
//
// Each tick is drawn once into a strip (a canvas used as a ring); a picture of the screen is two copies of pieces of
// it, so that 60 a second cost little. With reduced motion nothing scrolls: a line sweeps over the strip instead.

import { BANDS, COLUMNS } from "./spectrum.js";
import { FRAMES, SHAPES } from "./timeline.js";

const SECOND = 25; // ticks
const LANES = {
  wave: [0, 0.27],
  spectrum: [0.31, 0.68],
  semantic: [0.72, 0.77],
  coarse: [0.785, 0.865],
  fine: [0.88, 1],
};
const COARSE = 4;
const KEPT_TIMES = 240;

export class Plot {
  constructor(canvas, timeline) {
    Object.assign(this, { canvas, timeline });
    this.context = canvas.getContext("2d", { alpha: false });
    this.strip = document.createElement("canvas");
    this.ink = this.strip.getContext("2d", { alpha: false });
    this.head = 0;
    this.codebook = 1024;
    this.coarse = COARSE;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.times = { gaps: [], draws: [] };
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  resize() {
    const scale = Math.min(3, window.devicePixelRatio || 1);
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = Math.max(64, Math.round(clientWidth * scale));
    this.canvas.height = Math.max(64, Math.round(clientHeight * scale));
    this.pitch = Math.round((clientWidth < 600 ? 3 : 4) * scale); // device pixels a tick
    this.ticks = Math.ceil(this.canvas.width / this.pitch);
    this.strip.width = (this.ticks + 8) * this.pitch;
    this.strip.height = this.canvas.height;
    this.retheme();
  }

  /** Take the colours of the page anew and draw everything again. */
  retheme() {
    const style = getComputedStyle(this.canvas);
    const colour = (name) => rgb(style.getPropertyValue(name));
    this.colours = {
      paper: colour("--tape"),
      line: colour("--tape-line"),
      heard: colour("--heard"),
      made: colour("--made"),
      peak: colour("--peak"),
    };
    this.ramps = { heard: ramp(this.colours, this.colours.heard), made: ramp(this.colours, this.colours.made) };
    this.ink.fillStyle = css(this.colours.paper);
    this.ink.fillRect(0, 0, this.strip.width, this.strip.height);
    this.lines(0, this.strip.width);
    const { count } = this.timeline;
    for (let index = Math.max(0, count - this.ticks - 4); index < count; index += 1) this.timeline.changed.add(index);
    this.draw(performance.now());
  }

  // -- a picture of the screen ---------------------------------------------------------------------------------------

  draw(now) {
    const began = performance.now();
    this.timeline.changed.forEach((index) => this.tick(index));
    this.timeline.changed.clear();
    this.advance(now);
    if (this.still.matches) this.sweep();
    else this.scroll();
    this.measure(now, performance.now() - began);
  }

  /** The play-head follows the ticks smoothly, half a tick behind. */
  advance(now) {
    const passed = Math.min(0.1, (now - (this.before ?? now)) / 1000);
    const target = this.timeline.count - 0.5;
    const error = target - this.head;
    if (Math.abs(error) > 4) this.head = target;
    else this.head = Math.min(this.head + Math.max(0, passed * SECOND * (1 + 0.15 * error)), this.timeline.count);
  }

  scroll() {
    const { width, height } = this.canvas;
    const ring = this.strip.width;
    const left = Math.round((this.head - this.ticks) * this.pitch);
    const from = ((left % ring) + ring) % ring;
    const first = Math.min(width, ring - from);
    this.context.drawImage(this.strip, from, 0, first, height, 0, 0, first, height);
    if (first < width) this.context.drawImage(this.strip, 0, 0, width - first, height, first, 0, width - first, height);
  }

  sweep() {
    const { width, height } = this.canvas;
    this.context.drawImage(this.strip, 0, 0, width, height, 0, 0, width, height);
    const at = (this.timeline.count * this.pitch) % this.strip.width;
    this.context.fillStyle = css(this.colours.peak);
    this.context.fillRect(at, 0, Math.max(1, this.pitch / 3), height);
  }

  measure(now, took) {
    const { gaps, draws } = this.times;
    if (this.before !== undefined) gaps.push(now - this.before);
    draws.push(took);
    if (gaps.length > KEPT_TIMES) gaps.shift();
    if (draws.length > KEPT_TIMES) draws.shift();
    this.before = now;
  }

  /** Milliseconds between pictures and for drawing one: median and 95th percentile. */
  stats() {
    const of = (values, part) =>
      [...values].sort((one, other) => one - other)[Math.floor(part * (values.length - 1))] ?? 0;
    const { gaps, draws } = this.times;
    return { gap_p50: of(gaps, 0.5), gap_p95: of(gaps, 0.95), draw_p50: of(draws, 0.5), draw_p95: of(draws, 0.95) };
  }

  /** Draw as often as the screen shows it, while `wanted()` holds. */
  run(wanted) {
    this.before = undefined; // after a rest the first gap says nothing
    const next = (now) => {
      this.draw(now);
      if (wanted()) requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  }

  // -- one tick, into the strip --------------------------------------------------------------------------------------

  tick(index) {
    const record = this.timeline.get(index);
    if (!record || index < this.timeline.count - this.strip.width / this.pitch + 2) return;
    const x = (index * this.pitch) % this.strip.width;
    this.ink.fillStyle = css(this.colours.paper);
    this.ink.fillRect(x, 0, this.pitch, this.strip.height);
    this.lines(x, this.pitch);
    this.wave(x, record.heard, this.colours.heard, record.counts ? 1 : 0.35);
    this.wave(x, record.made, this.colours.made, 1);
    this.spectrum(x, record);
    this.tokens(x, record);
    if (index % SECOND === 0) this.mark(x);
  }

  lane(name) {
    const [top, bottom] = LANES[name];
    return [Math.round(top * this.strip.height), Math.round((bottom - top) * this.strip.height)];
  }

  lines(x, width) {
    this.ink.fillStyle = css(this.colours.line);
    const [top, height] = this.lane("wave");
    this.ink.fillRect(x, top + Math.round(height / 2), width, 1);
    for (const name of ["spectrum", "semantic", "coarse", "fine"]) {
      const [start, size] = this.lane(name);
      this.ink.fillRect(x, start + size, width, 1);
    }
  }

  mark(x) {
    const [top] = this.lane("spectrum");
    this.ink.fillStyle = css(this.colours.line);
    this.ink.fillRect(x, top - Math.round(0.03 * this.strip.height), 1, Math.round(0.02 * this.strip.height));
  }

  wave(x, sound, colour, alpha) {
    if (!sound) return;
    const [top, height] = this.lane("wave");
    const middle = top + height / 2;
    const place = (value) => Math.sign(value) * Math.abs(value) ** 0.5 * (height / 2);
    this.ink.fillStyle = css(colour, alpha);
    for (let column = 0; column < this.pitch; column += 1) {
      const part = Math.floor((column * SHAPES) / this.pitch);
      const [low, high] = [place(sound.shape[2 * part]), place(sound.shape[2 * part + 1])];
      this.ink.fillRect(x + column, middle - high, 1, Math.max(1, high - low));
    }
  }

  spectrum(x, record) {
    const [top, height] = this.lane("spectrum");
    const image = this.ink.createImageData(this.pitch, height);
    const weight = record.counts ? 1 : 0.4;
    for (let column = 0; column < this.pitch; column += 1) {
      const start = Math.floor((column * COLUMNS) / this.pitch) * BANDS;
      for (let row = 0; row < height; row += 1) {
        const band = ((height - 1 - row) * (BANDS - 1)) / (height - 1);
        const heard = Math.round(between(record.heard, start, band) * weight);
        this.pixel(image.data, 4 * (row * this.pitch + column), heard, Math.round(between(record.made, start, band)));
      }
    }
    this.ink.putImageData(image, x, top);
  }

  pixel(data, at, heard, made) {
    const { paper } = this.colours;
    for (let part = 0; part < 3; part += 1) {
      data[at + part] = this.ramps.heard[3 * heard + part] + this.ramps.made[3 * made + part] - paper[part];
    }
    data[at + 3] = 255;
  }

  tokens(x, record) {
    const colour = record.ownTokens ? this.colours.heard : this.colours.made;
    if (record.semantic >= 0) {
      const [top, height] = this.lane("semantic");
      this.ink.fillStyle = css(colour, shade(record.semantic, this.codebook));
      this.ink.fillRect(x, top, this.pitch, height);
    }
    if (!record.stack) return;
    const { levels, data } = record.stack;
    const width = this.pitch / FRAMES;
    for (let level = 0; level < levels; level += 1) {
      const [top, bottom] = this.row(level, levels);
      for (let frame = 0; frame < FRAMES; frame += 1) {
        this.ink.fillStyle = css(colour, shade(data[frame * levels + level], this.codebook));
        const left = Math.round(frame * width);
        this.ink.fillRect(x + left, top, Math.round((frame + 1) * width) - left, bottom - top);
      }
    }
  }

  row(level, levels) {
    const coarse = level < this.coarse;
    const [top, height] = this.lane(coarse ? "coarse" : "fine");
    const [index, rows] = coarse ? [level, this.coarse] : [level - this.coarse, levels - this.coarse];
    return [top + Math.round((index * height) / rows), top + Math.round(((index + 1) * height) / rows)];
  }
}

/** The level at a fractional band. */
function between(sound, start, band) {
  if (!sound) return 0;
  const low = Math.floor(band);
  const part = band - low;
  const { bands } = sound;
  return part === 0 ? bands[start + low] : bands[start + low] * (1 - part) + bands[start + low + 1] * part;
}

/** A token has no size, only a name: any shade tells it from its neighbours. */
function shade(token, codebook) {
  return 0.12 + 0.88 * ((token % codebook) / codebook) ** 1.5;
}

function rgb(text) {
  const hex = text.trim().replace("#", "");
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function css([red, green, blue], alpha = 1) {
  return `rgba(${red},${green},${blue},${alpha})`;
}

/** 256 colours from the paper over a colour to the brightest (or, on paper, the darkest). */
function ramp({ paper, peak }, colour) {
  const made = new Int16Array(256 * 3);
  for (let value = 0; value < 256; value += 1) {
    const part = value / 255;
    for (let index = 0; index < 3; index += 1) {
      const low = paper[index] + (colour[index] - paper[index]) * Math.min(1, part / 0.72) ** 1.3;
      made[3 * value + index] = Math.round(
        part < 0.72 ? low : colour[index] + (peak[index] - colour[index]) * ((part - 0.72) / 0.4),
      );
    }
  }
  return made;
}
