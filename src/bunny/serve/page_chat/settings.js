// How answers are made: kept in this browser, sent with every question, remembered with every answer.
import { make, place } from "./elements.js";
import { DEFAULTS } from "./request.js";

const KEPT = "bunny-settings";
const FIELDS = [
  { name: "system", label: "System prompt", kind: "words", rows: 3, note: "What the model is told before the conversation. Empty: nothing, or its own." },
  { name: "temperature", label: "Temperature", kind: "range", max: 2, note: "0: always the likeliest words. Higher: freer, and less sure." },
  { name: "top_p", label: "Top p", kind: "range", max: 1, note: "Draw only from the likeliest words that together have this share." },
  { name: "max_tokens", label: "Longest answer", kind: "whole", min: 1, unit: "tokens" },
  { name: "seed", label: "Seed", kind: "whole", min: 0, note: "The same seed draws the same words again. Empty: other words each time.", empty: true },
  { name: "stop", label: "Stop words", kind: "lines", rows: 2, note: "One a line, four at most: an answer ends before the first that it would contain." },
];

export class Settings {
  constructor(limits) {
    this.most = limits.tokens;
    this.values = { ...DEFAULTS, ...this.#kept() };
    place("settings-form").addEventListener("submit", (event) => event.preventDefault());
    this.draw();
  }

  // A copy, for one answer.
  get now() {
    return { ...this.values, stop: [...this.values.stop] };
  }

  draw() {
    const back = make("button", { type: "button", class: "plain", onclick: () => { this.values = { ...DEFAULTS }; this.#keep(); this.draw(); place("settings-form").querySelector("textarea").focus(); } }, "Back to the defaults");
    place("settings-form").replaceChildren(...FIELDS.map((field) => this.field(field)), back);
  }

  field({ name, label, kind, note, rows, unit, empty, min = 0, max }) {
    const value = this.values[name], id = `set-${name}`, shared = { id, "aria-describedby": note && `${id}-note` };
    const most = name === "max_tokens" && this.most ? this.most : max ?? 2 ** 31 - 1;
    const shown = make("output", { for: id, class: "num" }, kind === "range" ? value.toFixed(2) : "");
    const input = {
      words: () => make("textarea", { ...shared, rows }),
      lines: () => make("textarea", { ...shared, rows, spellcheck: "false" }),
      range: () => make("input", { ...shared, type: "range", min, max, step: 0.05 }),
      whole: () => make("input", { ...shared, type: "number", min, max: most, step: 1, inputmode: "numeric", placeholder: empty ? "none" : undefined }),
    }[kind]();
    input.value = kind === "lines" ? value.join("\n") : value ?? "";
    input.addEventListener("input", () => { this.#take(name, kind, input, empty); if (kind === "range") shown.textContent = this.values[name].toFixed(2); });
    return make("div", { class: "field" }, make("div", { class: "over" }, make("label", { for: id }, label), shown, unit && make("span", { class: "note" }, unit)),
      input, note && make("p", { class: "note", id: `${id}-note` }, note));
  }

  // What a field says, if it says something that can be sent.
  #take(name, kind, input, empty) {
    if (kind === "words") this.values[name] = input.value;
    else if (kind === "lines") this.values[name] = input.value.split("\n").filter(Boolean).slice(0, 4);
    else if (empty && !input.value) this.values[name] = null;
    else if (input.value && input.validity.valid) this.values[name] = Number(input.value);
    input.setAttribute("aria-invalid", String(!input.validity.valid));
    this.#keep();
  }

  #keep() {
    try { localStorage.setItem(KEPT, JSON.stringify(this.values)); } catch { /* this browser keeps nothing */ }
  }

  #kept() {
    try {
      const found = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
      return Object.fromEntries(Object.entries(found).filter(([name, value]) => name in DEFAULTS && fits(name, value)));
    } catch {
      return {};
    }
  }
}

function fits(name, value) {
  if (name === "seed") return value === null || Number.isInteger(value);
  return typeof value === typeof DEFAULTS[name] && Array.isArray(value) === Array.isArray(DEFAULTS[name]);
}
