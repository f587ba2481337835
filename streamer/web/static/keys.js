// Single keys for what the buttons do. Off while a field or dialog has the focus, or when the visitor has switched
// them off.

import { isField } from "./piano.js";

/** `actions`: key -> function; `wanted()` says whether they are on. */
export function shortcuts(actions, wanted) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!wanted() || isField(event.target)) return;
    if (event.key === " " && event.target.matches("button, input, a, summary")) return; // theirs
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
