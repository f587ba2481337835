// The settings of the page: what a session begins with, and what can be changed while it runs.
//
// `session()` are the values of hello and reset; sampling goes out by `on.sampling(values)` as it is moved, and again
// by `changes()` after a new welcome. What the visitor has not touched stays as the server says in its welcome.

import { MODES } from "./words.js";

const STAGES = ["semantic", "coarse", "fine"];
const SAMPLING = { temperature: 0.8, guidance: 1, top_k: 0 };
const SEND_EVERY = 120; // ms: a moved slider sends no more often

export class Controls {
  constructor(on) {
    this.on = on;
    this.fields = (id) => document.getElementById(id);
    this.sampling = Object.fromEntries(STAGES.map((stage) => [stage, { ...SAMPLING }]));
    this.touched = new Map(); // "stage.name" -> value
    this.waiting = new Map();
    this.echoTouched = false;
    this.listen();
    this.showSampling();
    this.showVolume();
  }

  listen() {
    const { fields } = this;
    fields("settings").addEventListener("submit", (event) => event.preventDefault());
    for (const id of ["bundle", "mode", "detector", "seconds", "seed"])
      fields(id).addEventListener("change", () => this.on.session(id));
    fields("dice").addEventListener("click", () => {
      fields("seed").value = Math.floor(Math.random() * 1e6);
      this.on.session("seed");
    });
    fields("stage").addEventListener("change", () => this.showSampling());
    for (const name of Object.keys(SAMPLING)) fields(name).addEventListener("input", () => this.move(name));
    fields("volume").addEventListener("input", () => {
      this.showVolume();
      this.on.volume(Number(fields("volume").value));
    });
    fields("echo").addEventListener("change", () => {
      this.echoTouched = true;
      this.on.echo(fields("echo").checked);
    });
  }

  // -- of a session --------------------------------------------------------------------------------------------------

  /** Values of hello and reset; what is left open is the server's choice. */
  session() {
    const text = (id) => this.fields(id).value || undefined;
    const number = (id) =>
      this.fields(id).value === "" || !this.fields(id).checkValidity() ? undefined : Number(this.fields(id).value);
    return {
      bundle: text("bundle"),
      mode: text("mode"),
      detector: text("detector"),
      seconds: number("seconds"),
      seed: number("seed"),
    };
  }

  get echo() {
    return this.fields("echo").checked;
  }

  /** Show what the server has said of the session. Returns whether the echo canceller should change with the bundle. */
  welcome(said) {
    this.options("bundle", split(said.bundles ?? said.bundle), said.bundle, (name) => name);
    this.options("mode", split(said.modes ?? said.mode ?? "continue"), said.mode, (name) => MODES[name] ?? name);
    this.fields("bundle").disabled = this.fields("bundle").options.length < 2;
    this.fields("seed").placeholder = said.seed ?? "any";
    for (const stage of STAGES) {
      for (const name of Object.keys(SAMPLING)) {
        const value = said[`${name}_${stage}`];
        if (typeof value === "number" && !this.touched.has(`${stage}.${name}`)) this.sampling[stage][name] = value;
      }
    }
    this.fields("guidance-row").hidden = !STAGES.some((stage) => typeof said[`guidance_${stage}`] === "number");
    this.showSampling();
    if (this.echoTouched) return false;
    const before = this.echo;
    this.fields("echo").checked = said.bundle === "speech";
    return before !== this.echo;
  }

  options(id, values, chosen, name) {
    const select = this.fields(id);
    if (values.length === 0) return;
    select.replaceChildren(...values.map((value) => new Option(name(value), value, false, value === chosen)));
  }

  // -- sampling ------------------------------------------------------------------------------------------------------

  get stages() {
    const stage = this.fields("stage").value;
    return stage ? [stage] : STAGES;
  }

  move(name) {
    const field = this.fields(name);
    if (field.value === "" || !field.checkValidity()) return;
    const value = Number(field.value);
    for (const stage of this.stages) {
      this.sampling[stage][name] = value;
      this.touched.set(`${stage}.${name}`, value);
    }
    this.showSampling(name);
    this.later(name, { [name]: value, node: this.fields("stage").value || undefined });
  }

  later(name, values) {
    const key = `${values.node ?? ""}.${name}`;
    const planned = this.waiting.has(key);
    this.waiting.set(key, values);
    if (planned) return;
    setTimeout(() => {
      const newest = this.waiting.get(key);
      this.waiting.delete(key);
      this.on.sampling(newest);
    }, SEND_EVERY);
  }

  /** What the visitor has changed, as values of `set`, a stage at a time. */
  changes() {
    return STAGES.map((node) => {
      const of = Object.keys(SAMPLING).filter((name) => this.touched.has(`${node}.${name}`));
      return of.length ? { node, ...Object.fromEntries(of.map((name) => [name, this.sampling[node][name]])) } : null;
    }).filter(Boolean);
  }

  /** All values by name, "temperature_coarse" and so on. */
  flatSampling() {
    const of = ([stage, values]) => Object.entries(values).map(([name, value]) => [`${name}_${stage}`, value]);
    return Object.fromEntries(Object.entries(this.sampling).flatMap(of));
  }

  showSampling(moved) {
    for (const name of Object.keys(SAMPLING)) {
      const values = this.stages.map((stage) => this.sampling[stage][name]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      if (name !== moved) this.fields(name).value = name === "top_k" ? low : (low + high) / 2;
      const shown = low === high ? low.toFixed(2) : `${low.toFixed(2)} – ${high.toFixed(2)}`;
      const output = this.fields(`${name}-shown`);
      if (output) output.textContent = shown;
      if (output) this.fields(name).setAttribute("aria-valuetext", shown);
    }
  }

  showVolume() {
    this.fields("volume-shown").textContent = `${Math.round(100 * this.fields("volume").value)} %`;
  }
}

function split(text) {
  return String(text ?? "")
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
}
