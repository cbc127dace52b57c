// Which models answer: one, or two side by side.
import { button, make, place } from "./elements.js";

const KEPT = "bunny-models";

export class Models {
  constructor(names) {
    this.names = names;
    let kept = [];
    try { kept = JSON.parse(localStorage.getItem(KEPT) ?? "[]"); } catch { /* none kept */ }
    this.chosen = [...new Set(kept)].filter((name) => names.includes(name)).slice(0, 2);
    if (!this.chosen.length) this.chosen = names.slice(0, 1);
    this.draw();
  }

  draw() {
    const two = this.chosen.length > 1;
    const toggle = this.names.length > 1 && button(two ? "One model only" : "Compare two models", "columns", () => this.toggle(), { "aria-pressed": String(two), class: "quiet compare", title: two ? "One model only" : "Compare two models side by side" });
    place("models").replaceChildren(...this.chosen.map((name, number) => this.choice(name, number)), toggle || "");
  }

  choice(name, number) {
    if (this.names.length === 1) return make("span", { class: "model" }, name);
    const label = this.chosen.length > 1 ? `Model ${number + 1}` : "Model";
    const made = make("select", { "aria-label": label }, ...this.names.map((one) => make("option", { value: one, selected: one === name }, one)));
    made.addEventListener("change", () => this.choose(number, made.value));
    return made;
  }

  // The same model twice is no comparison: the two change places.
  choose(number, name) {
    const other = this.chosen.indexOf(name);
    if (other >= 0) this.chosen[other] = this.chosen[number];
    this.chosen[number] = name;
    this.keep();
    place("models").querySelectorAll("select")[number].focus();
  }

  toggle() {
    this.chosen = this.chosen.length > 1 ? this.chosen.slice(0, 1) : [...this.chosen, this.names.find((name) => !this.chosen.includes(name))];
    this.keep();
    place("models").querySelector(".compare").focus();
  }

  keep() {
    try { localStorage.setItem(KEPT, JSON.stringify(this.chosen)); } catch { /* this browser keeps nothing */ }
    this.draw();
  }
}
