// Starts the page. `window.streamer` is for looking from the console, and for tests: `state`, `stats()` and
// `played(seconds)`, the samples at 16 kHz that were played last.

import { App } from "./app.js";

const app = new App();

window.streamer = {
  get state() {
    return app.state;
  },
  stats: () => app.stats(),
  played: (seconds) => app.sound.lastPlayed(seconds),
};
