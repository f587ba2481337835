// Sound in and out of the browser: microphone, files and notes into 16 kHz ticks, received sound to the loudspeaker.
//
// The context runs at the device's own rate (not every browser opens a microphone in one of 16 kHz); the worklets
// resample. Knows nothing of the network or of the page. `on.tick(Int16Array)` comes every 40 ms, `on.played(report)`
// as often.

import { RATE } from "./frames.js";

const KEPT = 20 * RATE; // samples of the last that was played, for whoever wants to look

export class MicrophoneError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export class Sound {
  constructor(on) {
    this.on = on;
    this.context = null;
    this.microphone = null;
    this.file = null;
    this.report = { level: 0, prime: 0, underruns: 0, lost: 0, playing: false };
    this.kept = new Float32Array(KEPT);
    this.keptCount = 0;
    this.holds = 0;
    this.muted = false;
  }

  /**
   * Make the context and its graph; call it from a click or key, or the browser keeps it silent. Resolves to what is
   * wrong: "old" browser, "broken" (parts of the page did not come), "silent" (it may not sound yet), or "".
   */
  async start() {
    if (!window.AudioWorkletNode) return "old";
    this.starting ??= this.build();
    try {
      await this.starting;
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      this.starting = this.context = null;
      return "broken";
    }
    if (this.context.state !== "running") await Promise.race([this.context.resume(), pause(400)]);
    return this.context.state === "running" ? "" : "silent";
  }

  async build() {
    const context = new AudioContext({ latencyHint: "interactive" });
    this.context = context;
    const module = (name) => context.audioWorklet.addModule(new URL(name, import.meta.url));
    await Promise.all([module("capture-worklet.js"), module("playout-worklet.js")]);
    this.capture = new AudioWorkletNode(context, "capture", { channelCount: 1, channelCountMode: "explicit" });
    this.playout = new AudioWorkletNode(context, "playout", { numberOfInputs: 0, outputChannelCount: [1] });
    this.volume = new GainNode(context);
    this.own = new GainNode(context); // what the visitor plays in the page: sent, and heard here
    this.own.connect(this.capture);
    this.own.connect(this.volume);
    this.playout.connect(this.volume).connect(context.destination);
    this.capture.connect(context.destination); // it gives silence; some browsers run only what leads there
    this.capture.port.onmessage = ({ data }) => this.on.tick(data);
    this.playout.port.onmessage = ({ data }) => this.took(data);
    context.onstatechange = () => this.on.context?.(context.state);
  }

  get running() {
    return this.context?.state === "running";
  }

  /** Seconds between a sample's leaving the play-out and its sounding. */
  get outputLatency() {
    return (this.context?.outputLatency ?? 0) + (this.context?.baseLatency ?? 0);
  }

  // -- the microphone ------------------------------------------------------------------------------------------------

  /** Open it; `echo` asks the browser to take its own loudspeaker's sound out. Raises MicrophoneError. */
  async openMicrophone(echo) {
    if (!navigator.mediaDevices?.getUserMedia) throw new MicrophoneError("insecure", "");
    const wanted = {
      echoCancellation: echo,
      noiseSuppression: false,
      autoGainControl: false,
      channelCount: { ideal: 1 },
    };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
    } catch (error) {
      throw new MicrophoneError(KINDS_OF_REFUSAL[error.name] ?? "other", error.message);
    }
    this.closeMicrophone();
    const [track] = stream.getAudioTracks();
    const source = new MediaStreamAudioSourceNode(this.context, { mediaStream: stream });
    const gain = new GainNode(this.context, { gain: this.closed ? 0 : 1 });
    source.connect(gain).connect(this.capture);
    track.onended = () => {
      this.closeMicrophone();
      this.on.microphoneGone?.();
    };
    this.microphone = { stream, source, gain, name: track.label };
  }

  closeMicrophone() {
    if (!this.microphone) return;
    const { stream, source, gain } = this.microphone;
    stream.getTracks().forEach((track) => {
      track.onended = null;
      track.stop();
    });
    source.disconnect();
    gain.disconnect();
    this.microphone = null;
  }

  /** While the visitor plays in the page the microphone would hear it a second time: hold it off. Counted. */
  hold() {
    this.holds += 1;
    this.gate();
  }

  release() {
    this.holds = Math.max(0, this.holds - 1);
    this.gate();
  }

  mute(on) {
    this.muted = on;
    this.gate();
  }

  get closed() {
    return this.muted || this.holds > 0;
  }

  gate() {
    this.microphone?.gain.gain.setTargetAtTime(this.closed ? 0 : 1, this.context.currentTime, 0.02);
  }

  // -- a file --------------------------------------------------------------------------------------------------------

  /** Play a decoded file into the session; resolves to whether it came to its end by itself. */
  playFile(buffer) {
    this.stopFile();
    const source = new AudioBufferSourceNode(this.context, { buffer });
    const fade = new GainNode(this.context);
    source.connect(fade).connect(this.own);
    this.hold();
    const playing = { source, fade, started: this.context.currentTime, seconds: buffer.duration, stopped: false };
    this.file = playing;
    return new Promise((resolve) => {
      source.onended = () => {
        fade.disconnect();
        this.release();
        if (this.file === playing) this.file = null;
        resolve(!playing.stopped);
      };
      source.start();
    });
  }

  stopFile() {
    if (!this.file) return;
    const { source, fade } = this.file;
    this.file.stopped = true;
    fade.gain.setTargetAtTime(0, this.context.currentTime, 0.008);
    source.stop(this.context.currentTime + 0.05);
    this.file = null;
  }

  // -- received sound ------------------------------------------------------------------------------------------------

  put(samples, epoch, position) {
    const floats = Float32Array.from(samples, samples instanceof Int16Array ? (value) => value / 32768 : undefined);
    this.playout?.port.postMessage({ samples: floats, epoch, position }, [floats.buffer]);
  }

  endTurn() {
    this.playout?.port.postMessage({ what: "turn" });
  }

  interrupt(epoch) {
    this.playout?.port.postMessage({ what: "interrupt", epoch });
  }

  restart() {
    this.playout?.port.postMessage({ what: "restart" });
  }

  took(report) {
    this.report = report;
    for (let index = 0; index < 640; index += 1)
      this.kept[(this.keptCount + index) % KEPT] = report.samples?.[index] ?? 0;
    this.keptCount += 640;
    this.on.played(report);
  }

  /** The last seconds that were played, silence included. */
  lastPlayed(seconds) {
    const count = Math.min(Math.round(seconds * RATE), KEPT, this.keptCount);
    return Float32Array.from({ length: count }, (_, index) => this.kept[(this.keptCount - count + index) % KEPT]);
  }

  async stop() {
    this.stopFile();
    this.closeMicrophone();
    this.restart();
    await this.context?.suspend();
  }
}

const KINDS_OF_REFUSAL = {
  NotAllowedError: "refused",
  SecurityError: "refused",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "busy",
  AbortError: "busy",
};

function pause(milliseconds) {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
  });
}
