// The jitter buffer before the play-out: primed, faded, bounded, counted. 16 kHz, mono; pure, so that it can be
// tested.
//
// It plays once `prime` samples wait (or a turn has ended with fewer) and fades out at the end of the turn. When it runs
// dry before, the last 80 ms go on back and forth and fade over half a second (as in streamer/conceal.py), until enough
// waits again: then the sound is faded into. It never lets more than `most` wait: what is over is skipped with a
// cross-fade and counted as lost.

const FADE = 80; // 5 ms
const CROSS = 160; // 10 ms
const PAST = 1280; // what an underrun is concealed with
const CONCEALED = 8000; // after which that has faded out
const STEP_UP = 640; // an underrun asks for one more tick of priming

export class JitterBuffer {
  constructor({ prime = 1920, leastPrime = 1280, mostPrime = 5120, slack = 6400, capacity = 32768 } = {}) {
    Object.assign(this, { prime, leastPrime, mostPrime, slack });
    this.ring = new Float32Array(capacity);
    this.epoch = 0;
    this.underruns = 0;
    this.lost = 0;
    this.tail = null; // what is made up behind the last sample that was played
    this.clear();
  }

  clear() {
    Object.assign(this, { head: 0, level: 0, gain: 0, playing: false, ended: false, marks: [] });
  }

  /** A new stream: forget everything but the counts and what was learnt of the network. */
  restart() {
    this.cut();
    this.clear();
    this.epoch = 0;
  }

  /** Samples (float) that start at `position`; stale ones are passed over, what does not fit is lost. */
  put(samples, epoch, position) {
    if (epoch < this.epoch) return;
    this.epoch = epoch;
    if (this.ended && !this.playing) this.clear();
    this.ended = false;
    const fits = Math.min(samples.length, this.ring.length - this.level);
    this.lost += samples.length - fits;
    if (fits === 0) return;
    this.marks.push({ at: this.head + this.level, position });
    for (let index = 0; index < fits; index += 1)
      this.ring[(this.head + this.level + index) % this.ring.length] = samples[index];
    this.level += fits;
    if (this.level > this.prime + this.slack) this.skip(this.level - this.prime);
  }

  /** The turn is over: play what waits, then be silent without counting an underrun. */
  endTurn() {
    this.ended = true;
    if (this.level === 0) this.cut();
  }

  /** Fade out now and ignore what is older than `epoch`. */
  interrupt(epoch) {
    this.epoch = Math.max(this.epoch, epoch);
    this.cut();
    if (!this.playing) return this.clear();
    this.level = Math.min(this.level, FADE);
    this.ended = true;
  }

  /** Fill `out`; return the position of its first sample, or -1 in silence. */
  take(out) {
    let first = -1;
    for (let index = 0; index < out.length; index += 1) {
      out[index] = this.next();
      if (this.playing && first < 0) first = this.positionOf(this.head - 1) - index;
    }
    return first;
  }

  next() {
    if (!this.playing) {
      if (this.level === 0 || (this.level < this.prime && !this.ended)) return this.madeUp();
      this.playing = true;
      this.gain = 0;
    }
    if (this.level === 0) return this.runDry();
    const step = 1 / FADE;
    const end = this.ended ? Math.max(this.level * step, this.gain - step) : 1;
    this.gain = Math.max(0, Math.min(1, this.gain + step, end));
    const sample = this.ring[this.head % this.ring.length] * this.gain + this.faded();
    this.head += 1;
    this.level -= 1;
    return sample;
  }

  /** Behind the last sample, which had `this.gain`: the last 80 ms back and forth, fading over `length` samples. */
  goOn(length) {
    const past = Float32Array.from({ length: PAST }, (_, index) => {
      const at = this.head - PAST + index;
      return at < 0 ? 0 : this.ring[at % this.ring.length];
    });
    this.tail = { past, at: 0, left: length, length, scale: this.gain };
  }

  madeUp() {
    const { tail } = this;
    if (!tail) return 0;
    const place = tail.at % (2 * PAST);
    const value = tail.past[place < PAST ? PAST - 1 - place : place - PAST];
    tail.at += 1;
    tail.left -= 1;
    const sample = (value * tail.scale * tail.left) / tail.length;
    if (tail.left <= 0) this.tail = null;
    return sample;
  }

  /** What is left of it while the sound fades in over it. */
  faded() {
    if (!this.tail) return 0;
    if (this.gain < 1) return this.madeUp() * (1 - this.gain);
    this.tail = null;
    return 0;
  }

  /** What is made up ends within 5 ms. */
  cut() {
    const { tail } = this;
    if (!tail) return;
    tail.scale *= tail.left / tail.length;
    tail.left = tail.length = FADE;
  }

  runDry() {
    if (this.gain > 0.02) this.goOn(this.ended ? FADE : CONCEALED);
    if (!this.ended) {
      this.underruns += 1;
      this.prime = Math.min(this.mostPrime, this.prime + STEP_UP);
    } else this.prime = Math.max(this.leastPrime, this.prime - STEP_UP / 4); // a turn without trouble: closer again
    this.clear();
    return this.madeUp();
  }

  skip(count) {
    const size = this.ring.length;
    for (let index = 0; index < CROSS; index += 1) {
      const old = this.ring[(this.head + index) % size];
      const place = (this.head + count + index) % size;
      const mix = (index + 0.5) / CROSS;
      this.ring[place] = old * (1 - mix) + this.ring[place] * mix;
    }
    this.head += count;
    this.level -= count;
    this.lost += count;
  }

  positionOf(index) {
    while (this.marks.length > 1 && this.marks[1].at <= index) this.marks.shift();
    const [mark] = this.marks;
    return mark ? mark.position + index - mark.at : -1;
  }
}
