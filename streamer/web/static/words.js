// What the page says: states, problems and how to mend them, in plain words. Text alone.

export const STATES = {
  idle: ["Ready", "Start asks for the microphone. Without one, play the piano below or give it a sound file."],
  connecting: ["Connecting", "One moment."],
  loading: ["Loading the model", "The first visitor of a bundle waits a few seconds."],
  listening: ["Listening", "Play a phrase, then stop: it goes on."],
  continuing: ["Continuing", "Play again and it yields."],
  waiting: ["Waiting for its sound", "It has decided to go on; the first sound is on its way."],
  full: ["All places are taken", "You come in as soon as somebody leaves."],
  reconnecting: ["Connection lost", "Coming back by itself."],
  duet: ["Playing together", "It plays while you play."],
  reconstruct: ["Through the codec", "You hear what its tokens keep of you. Use headphones."],
  file: ["Listening to the file", "It goes on when the file ends, or at once with Continue now."],
  stopped: ["Stopped", "Start begins a new session."],
};

const WITHOUT = "The piano and sound files work without it.";

export const MICROPHONE = {
  refused: `The browser has refused the microphone. Allow it beside the page's address and try again. ${WITHOUT}`,
  missing: `No microphone was found. Plug one in and try again. ${WITHOUT}`,
  busy: "The microphone is there but cannot be opened: another program may hold it. Close that program and try again.",
  insecure: `A browser gives the microphone only to pages from https or from this computer (localhost). ${WITHOUT}`,
  other: "The microphone cannot be opened.",
  gone: "The microphone has gone. It is used again as soon as it is back.",
};

export const CLOSED = {
  token: "The server did not take the token.",
  origin: "The server does not take visitors from this address.",
  limit: "The time of this session is over. Start begins a new one.",
  failed: "The model has stopped with an error.",
  bad_frame: "The server did not understand this page. Load it again; it may have been renewed meanwhile.",
};

export const RETRY = {
  full: "The server is full",
  busy: "The server is too busy",
  slow: "The connection is too slow for the sound",
  bye: "The server is closing or restarting",
  silent: "The server does not answer",
  lost: "The connection is lost",
};

export const FILE = {
  unknown: (name) => `The browser cannot read ${name} as sound. WAV, FLAC, MP3, Ogg and M4A usually work.`,
  empty: (name) => `${name} holds no sound.`,
  large: (name) => `${name} is too large: at most 200 MB.`,
};

export const SOUND = {
  silent: "The browser keeps this page silent until you press a key or click. Press Start.",
  broken: "Parts of this page did not come from the server. Load the page again when the server is there.",
  old: "This browser is too old for the page: it lacks AudioWorklet. A recent Firefox, Chrome, Edge or Safari has it.",
};

export const MODES = {
  continue: "Continue me",
  duet: "Duet: play together",
  reconstruct: "Only the codec: what is kept of me",
};

/** What is worth more than the usual hint, if anything. */
export function noteOf({ left_s: left, left_out: without, rtf }) {
  if (left != null && left < 60) return `This visit ends in ${Math.ceil(left / 5) * 5} seconds.`;
  if (without) return `The server's computer is too slow at the moment, so it leaves out ${without}.`;
  return rtf > 1 ? "The server's computer cannot keep up at the moment; there will be gaps." : undefined;
}
