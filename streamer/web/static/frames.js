// Frames: what travels on the wire, one msgpack array a message (docs/frames.md). Knows the format only, nothing of
// sockets.
//
// `pack(frame)` gives bytes, `unpack(bytes)` a frame or a FrameError. A frame: {kind, session, epoch, seq, position,
// rate, dtype, shape, data, flags, meta}; `data` is a typed array of the dtype. Numbers beyond 2^53 are refused: a
// page lives shorter.

export const VERSION = 1;
export const RATE = 16000;
export const TICK = 640;
export const HEARD = 1;
export const GENERATED = 2;
export const LAST = 4;
export const TURN = 8;

const LIMITS = { bytes: 1118720, payload: 1 << 20, meta: 32, text: 1024, session: 64, levels: 32, rate: 384000 };
const ARRAYS = { f4: Float32Array, i2: Int16Array, u2: Uint16Array, u1: Uint8Array };
const KINDS = {
  audio: { dtypes: ["f4", "i2"], axes: 1, rate: RATE },
  acoustic: { dtypes: ["u2"], axes: 2, rate: 50 },
  semantic: { dtypes: ["u2"], axes: 1, rate: 25 },
  coarse: { dtypes: ["u2"], axes: 2, rate: 50 },
  fine: { dtypes: ["u2"], axes: 2, rate: 50 },
  control: { dtypes: ["u1"], axes: 1, rate: 25 },
  tick: { dtypes: ["u1"], axes: 1, rate: 25 },
};
const utf8 = { encoder: new TextEncoder(), decoder: new TextDecoder("utf-8", { fatal: true }) };

export class FrameError extends Error {}

function refuse(what) {
  throw new FrameError(what);
}

// -- making frames ---------------------------------------------------------------------------------------------------

/** A command with its values; undefined values are left out. */
export function control(command, values = {}) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return frameOf("control", new Uint8Array(0), { meta: { command, ...Object.fromEntries(given) } });
}

/** 16-bit sound at a position (samples at 16 kHz). */
export function sound(samples, position, seq) {
  return frameOf("audio", samples, { position, seq, flags: HEARD });
}

function frameOf(kind, data, { position = 0, seq = 0, flags = 0, meta = {} }) {
  const dtype = Object.keys(ARRAYS).find((name) => data instanceof ARRAYS[name]);
  return {
    kind,
    session: "",
    epoch: 0,
    seq,
    position,
    rate: KINDS[kind].rate,
    dtype,
    shape: [data.length],
    data,
    flags,
    meta,
  };
}

/** The frame's bytes. */
export function pack(frame) {
  const writer = new Writer(96 + frame.data.byteLength);
  writer.head(0x90, 15, 12);
  writer.integer(VERSION);
  writer.text(frame.kind);
  writer.text(frame.session);
  for (const number of [frame.epoch, frame.seq, frame.position, frame.rate]) writer.integer(number);
  writer.text(frame.dtype);
  writer.head(0x90, 15, frame.shape.length);
  frame.shape.forEach((size) => writer.integer(size));
  writer.binary(new Uint8Array(frame.data.buffer, frame.data.byteOffset, frame.data.byteLength));
  writer.integer(frame.flags);
  const meta = Object.entries(frame.meta);
  writer.head(0x80, 15, meta.length);
  for (const [key, value] of meta) {
    writer.text(key);
    writer.plain(value);
  }
  return writer.bytes.subarray(0, writer.at);
}

class Writer {
  constructor(size) {
    this.bytes = new Uint8Array(size);
    this.at = 0;
  }

  room(count) {
    if (this.at + count > this.bytes.length) {
      const larger = new Uint8Array(2 * (this.at + count));
      larger.set(this.bytes);
      this.bytes = larger;
    }
    this.at += count;
    return new DataView(this.bytes.buffer, this.at - count, count);
  }

  head(fixed, most, count) {
    if (count > most) throw new RangeError(`${count} items; at most ${most} can be sent`);
    this.room(1).setUint8(0, fixed | count);
  }

  integer(number) {
    if (!Number.isSafeInteger(number) || number < 0) throw new RangeError(`not a number of a frame: ${number}`);
    if (number < 0x80) return this.room(1).setUint8(0, number);
    const view = this.room(number < 0x100000000 ? 5 : 9);
    if (number < 0x100000000) {
      view.setUint8(0, 0xce);
      return view.setUint32(1, number);
    }
    view.setUint8(0, 0xcf);
    return view.setBigUint64(1, BigInt(number));
  }

  text(text) {
    const bytes = utf8.encoder.encode(text);
    if (bytes.length > LIMITS.text)
      throw new RangeError(`a text of ${bytes.length} bytes; at most ${LIMITS.text} can be sent`);
    if (bytes.length < 32) this.room(1).setUint8(0, 0xa0 | bytes.length);
    else {
      const view = this.room(3);
      view.setUint8(0, 0xda);
      view.setUint16(1, bytes.length);
    }
    this.raw(bytes);
  }

  binary(bytes) {
    const view = this.room(5);
    view.setUint8(0, 0xc6);
    view.setUint32(1, bytes.length);
    this.raw(bytes);
  }

  raw(bytes) {
    this.room(bytes.length);
    this.bytes.set(bytes, this.at - bytes.length);
  }

  plain(value) {
    if (value === null) this.room(1).setUint8(0, 0xc0);
    else if (typeof value === "boolean") this.room(1).setUint8(0, value ? 0xc3 : 0xc2);
    else if (typeof value === "string") this.text(value);
    else if (Number.isSafeInteger(value) && value >= 0) this.integer(value);
    else if (Number.isFinite(value)) {
      const view = this.room(9);
      view.setUint8(0, 0xcb);
      view.setFloat64(1, value);
    } else throw new RangeError(`not a plain value: ${value}`);
  }
}

// -- reading frames --------------------------------------------------------------------------------------------------

/** A frame from bytes, checked in the order that docs/frames.md gives; tokens lie below `codebook`. */
export function unpack(buffer, codebook = 1024) {
  const bytes = new Uint8Array(buffer);
  if (bytes.length > LIMITS.bytes) refuse(`a message of ${bytes.length} bytes; at most ${LIMITS.bytes}`);
  const reader = new Reader(bytes);
  const items = reader.array(12);
  if (reader.at !== bytes.length) refuse("bytes behind the frame");
  if (items.length !== 12) refuse(`${items.length} items; expected 12`);
  const [version, kind, session, epoch, seq, position, rate, dtype, shape, payload, flags, meta] = items;
  if (version !== VERSION) refuse(`version ${version}; this page speaks ${VERSION}`);
  if (typeof kind !== "string" || !Object.hasOwn(KINDS, kind)) refuse(`unknown kind ${kind}`);
  if (typeof session !== "string" || session.length > LIMITS.session) refuse("the session's name");
  for (const number of [epoch, seq, position]) if (!isCount(number)) refuse("a number is out of range");
  if (!isCount(rate) || rate < 1 || rate > LIMITS.rate) refuse(`rate ${rate}`);
  if (!isCount(flags) || flags > (HEARD | GENERATED | LAST | TURN)) refuse(`flags ${flags}`);
  const data = checkedData(KINDS[kind], dtype, shape, payload, codebook);
  if (!(meta instanceof Map)) refuse("meta is not a map");
  return { kind, session, epoch, seq, position, rate, dtype, shape, data, flags, meta: Object.fromEntries(meta) };
}

function isCount(value) {
  return Number.isSafeInteger(value) && value >= 0;
}

function checkedData(kind, dtype, shape, payload, codebook) {
  if (!kind.dtypes.includes(dtype)) refuse(`dtype ${dtype}`);
  if (!Array.isArray(shape) || shape.length !== kind.axes || !shape.every(isCount)) refuse("the shape");
  if (kind.axes === 2 && shape[1] > LIMITS.levels) refuse(`${shape[1]} levels; at most ${LIMITS.levels}`);
  if (!(payload instanceof Uint8Array)) refuse("the payload is not binary");
  const size = ARRAYS[dtype].BYTES_PER_ELEMENT;
  const expected = size * shape.reduce((product, length) => product * length, 1);
  if (payload.length !== expected || expected > LIMITS.payload) refuse(`${payload.length} bytes; expected ${expected}`);
  const data = new ARRAYS[dtype](payload.slice().buffer);
  if (dtype === "u2" && data.some((token) => token >= codebook)) refuse("a token is too large");
  return data;
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.at = 0;
  }

  take(count) {
    if (this.at + count > this.bytes.length) refuse("the message ends too early");
    this.at += count;
    return this.at - count;
  }

  array(most) {
    const head = this.view.getUint8(this.take(1));
    const count =
      head >> 4 === 9 ? head & 15 : head === 0xdc ? this.view.getUint16(this.take(2)) : refuse("not an array");
    if (count > most) refuse(`an array of ${count}`);
    return Array.from({ length: count }, () => this.item(true));
  }

  /** Any item; arrays and maps only where `nested` allows them. */
  item(nested = false) {
    const head = this.view.getUint8(this.take(1));
    if (head < 0x80) return head;
    if (head >= 0xe0) return head - 0x100;
    if (head >> 5 === 5) return this.text(head & 31);
    if (nested && (head >> 4 === 9 || head === 0xdc)) {
      this.at -= 1;
      return this.sizes();
    }
    if (nested && (head >> 4 === 8 || head === 0xde))
      return this.map(head >> 4 === 8 ? head & 15 : this.view.getUint16(this.take(2)));
    const read = READERS[head];
    return read ? read(this) : refuse(`msgpack type 0x${head.toString(16)}`);
  }

  sizes() {
    const head = this.view.getUint8(this.take(1));
    const count = head === 0xdc ? this.view.getUint16(this.take(2)) : head & 15;
    if (count > 2) refuse(`${count} axes`);
    return Array.from({ length: count }, () => this.item());
  }

  map(count) {
    if (count > LIMITS.meta) refuse(`${count} entries of meta; at most ${LIMITS.meta}`);
    const made = new Map();
    for (let index = 0; index < count; index += 1) {
      const key = this.item();
      if (typeof key !== "string") refuse("a key of meta is not text");
      const value = this.item();
      if (value instanceof Uint8Array) refuse("meta holds bytes");
      made.set(key, value);
    }
    return made;
  }

  text(length) {
    if (length > LIMITS.text) refuse(`a text of ${length} bytes`);
    const at = this.take(length);
    try {
      return utf8.decoder.decode(this.bytes.subarray(at, at + length));
    } catch {
      return refuse("a text is not UTF-8");
    }
  }

  binary(length) {
    if (length > LIMITS.payload) refuse(`a payload of ${length} bytes`);
    const at = this.take(length);
    return this.bytes.subarray(at, at + length);
  }

  wide(big) {
    const number = Number(big);
    return Number.isSafeInteger(number) ? number : refuse("a number beyond 2^53");
  }
}

const READERS = {
  0xc0: () => null,
  0xc2: () => false,
  0xc3: () => true,
  0xc4: (reader) => reader.binary(reader.view.getUint8(reader.take(1))),
  0xc5: (reader) => reader.binary(reader.view.getUint16(reader.take(2))),
  0xc6: (reader) => reader.binary(reader.view.getUint32(reader.take(4))),
  0xca: (reader) => reader.view.getFloat32(reader.take(4)),
  0xcb: (reader) => reader.view.getFloat64(reader.take(8)),
  0xcc: (reader) => reader.view.getUint8(reader.take(1)),
  0xcd: (reader) => reader.view.getUint16(reader.take(2)),
  0xce: (reader) => reader.view.getUint32(reader.take(4)),
  0xcf: (reader) => reader.wide(reader.view.getBigUint64(reader.take(8))),
  0xd0: (reader) => reader.view.getInt8(reader.take(1)),
  0xd1: (reader) => reader.view.getInt16(reader.take(2)),
  0xd2: (reader) => reader.view.getInt32(reader.take(4)),
  0xd3: (reader) => reader.wide(reader.view.getBigInt64(reader.take(8))),
  0xd9: (reader) => reader.text(reader.view.getUint8(reader.take(1))),
  0xda: (reader) => reader.text(reader.view.getUint16(reader.take(2))),
};
