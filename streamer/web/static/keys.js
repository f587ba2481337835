// Single keys for what the buttons do. Off while a field or dialog has the focus, or when the visitor has switched them
// off. None of them is a key of the piano.

import { isField } from "./piano.js";

const ACTIONS = {
  p: "power",
  " ": "pass",
  k: "continueNow",
  l: "listenNow",
  i: "mute",
  f: "choose",
  o: "record",
  0: "reset",
  "?": "help",
};

/** `act(name)` is called with the name of an action; `wanted()` says whether the keys are on. */
export function shortcuts(act, wanted) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!wanted() || isField(event.target)) return;
    if (event.key === " " && event.target.matches("button, input, a, summary")) return; // theirs
    const name = event.key.toLowerCase();
    if (!Object.hasOwn(ACTIONS, name)) return;
    event.preventDefault();
    act(ACTIONS[name]);
  });
}
