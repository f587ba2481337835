// A small struck string, by addition of partials: enough to play a phrase on, made in a few milliseconds. Pure.

const SECONDS = 2.8;
const HIGHEST = 7200; // Hz: what a model at 16 kHz can hear
const PARTIALS = 18;

export function frequency(note) {
  return 440 * 2 ** ((note - 69) / 12);
}

/** One note (MIDI number) as samples at `rate`; it dies away by itself. */
export function strike(note, rate) {
  const out = new Float32Array(Math.round(SECONDS * rate));
  const base = frequency(note);
  const stiffness = 0.0002 * 2 ** ((note - 48) / 12);
  for (let n = 1; n <= PARTIALS; n += 1) {
    const pitch = n * base * Math.sqrt(1 + stiffness * n * n);
    if (pitch < HIGHEST) partial(out, rate, pitch, n, note);
  }
  hammer(out, rate);
  shape(out, rate);
  return out;
}

/** A partial dies in two ways at once, fast and slow, as the strings of a key first move together and then apart. */
function partial(out, rate, pitch, n, note) {
  const loud = Math.abs(Math.sin((Math.PI * n) / 7.3)) / n ** 1.1; // struck at a seventh of its length
  const life = (2.2 * 2 ** ((60 - note) / 18)) / (1 + 0.28 * (n - 1));
  const fast = Math.exp(-1 / (0.22 * life * rate));
  const slow = Math.exp(-1 / (life * rate));
  const turn = (2 * Math.PI * pitch) / rate;
  const [cosine, sine] = [Math.cos(turn), Math.sin(turn)];
  let [x, y] = [1, 0];
  let [quick, long] = [0.62 * loud, 0.38 * loud];
  for (let index = 0; index < out.length; index += 1) {
    out[index] += y * (quick + long);
    [x, y] = [x * cosine - y * sine, x * sine + y * cosine];
    quick *= fast;
    long *= slow;
  }
}

/** The felt on the strings: 12 ms of soft noise, the same each time. */
function hammer(out, rate) {
  let seed = 1;
  let soft = 0;
  const count = Math.round(0.012 * rate);
  for (let index = 0; index < count; index += 1) {
    seed = (seed * 16807) % 2147483647;
    soft += 0.15 * (seed / 1073741823.5 - 1 - soft);
    out[index] += 0.25 * soft * (1 - index / count);
  }
}

/** A short attack, an end without a click, and one level for all keys. */
function shape(out, rate) {
  let peak = 1e-9;
  const attack = Math.round(0.003 * rate);
  const release = Math.round(0.15 * rate);
  for (let index = 0; index < out.length; index += 1) {
    const left = out.length - index;
    out[index] *= Math.min(1, (index + 1) / attack, left / release);
    peak = Math.max(peak, Math.abs(out[index]));
  }
  for (let index = 0; index < out.length; index += 1) out[index] *= 0.8 / peak;
}
