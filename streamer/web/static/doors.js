// How things come into the page and out of it: a token in its address, a file dropped on it, a file to keep.

import { store, stored } from "./view.js";
import { FILE } from "./words.js";

const LARGEST = 200e6; // bytes

export class FileError extends Error {}

/** The token of the page's address, which it then loses, or the one of before. */
export function takeToken() {
  const place = new URLSearchParams(location.hash.slice(1) || location.search);
  const token = place.get("token");
  if (token === null) return stored("token", "sessionStorage") ?? "";
  store("token", token, "sessionStorage");
  history.replaceState(null, "", location.pathname);
  return token;
}

/** Files that are dropped anywhere on the page. */
export function dropZone(take) {
  const zone = document.getElementById("drop");
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    zone.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zone.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    zone.hidden = true;
    take(event.dataTransfer.files[0]);
  });
}

/** A file as sound, whatever the browser can read; FileError in plain words. */
export async function decode(file, context) {
  if (file.size > LARGEST) throw new FileError(FILE.large(file.name));
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    throw new FileError(FILE.unknown(file.name));
  }
  if (buffer.length === 0) throw new FileError(FILE.empty(file.name));
  return buffer;
}

/** Let the browser save a file under a name. */
export function saveFile(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
