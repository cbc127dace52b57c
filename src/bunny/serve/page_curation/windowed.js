// A list or grid of any length: only what is in sight exists and is asked for. fetch(start, count, signal) gives
// {total, items}; render(item) gives an element.
import { make } from "./elements.js";

const PAGE = 100; // items asked for at a time
const MOST_PAGES = 80; // remembered
const TALLEST = 12e6; // pixels; browsers cannot scroll further than some 17 million
const GAP = 10, EDGE = 18;

let names = 0;

export class Windowed {
  constructor({ label, width = 0, height, fetch, render, describe, open, moved = () => {} }) {
    Object.assign(this, { width, height: height + GAP, fetch, render, describe, open, moved });
    this.name = `w${++names}`;
    this.spacer = make("div", { class: "spacer" });
    this.element = make("div", { class: "windowed", tabindex: "0", role: "listbox", "aria-label": label }, this.spacer);
    this.element.addEventListener("scroll", () => this.soon());
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.resized = new ResizeObserver(() => this.refit());
    this.resized.observe(this.element);
    this.generation = 0;
    this.reset();
  }

  // Ask anew: for other conditions, or after a change (keep: stay where one was).
  reset(keep = false) {
    this.generation += 1;
    this.waiting?.forEach((control) => control.abort());
    this.pages = new Map();
    this.waiting = new Map();
    this.forget();
    if (!keep) { this.total = null; this.active = 0; this.element.scrollTop = 0; }
    this.empty?.remove();
    this.soon();
  }

  stop() { this.resized.disconnect(); this.waiting.forEach((control) => control.abort()); }

  // Another width: the same item stays in sight.
  refit() {
    if (!this.element.clientHeight) return;
    const before = this.columns;
    this.forget();
    this.measure();
    if (before && before !== this.columns) this.choose(this.active);
    this.soon();
  }

  forget() { this.cells?.forEach((cell) => cell.remove()); this.cells = new Map(); }

  item(index) { return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE]; }

  get current() { return this.item(this.active); }

  // Replace an item wherever it is shown.
  renew(item) {
    for (const [number, page] of this.pages) {
      const place = page.findIndex((one) => one.row === item.row);
      if (place < 0) continue;
      page[place] = { ...page[place], ...item };
      const index = number * PAGE + place;
      this.cells.get(index)?.remove();
      this.cells.delete(index);
    }
    this.soon();
  }

  soon() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => { this.drawing = 0; this.draw(); });
  }

  measure() {
    const inside = this.element.clientWidth - 2 * EDGE;
    this.columns = this.width ? Math.max(1, Math.floor((inside + GAP) / (this.width + GAP))) : 1;
    this.cellWidth = (inside + GAP) / this.columns - GAP;
    const lines = Math.ceil((this.total ?? 0) / this.columns);
    this.full = lines * this.height + EDGE;
    const shown = Math.min(this.full, TALLEST), view = this.element.clientHeight;
    this.spacer.style.height = `${shown}px`;
    this.ratio = shown > view ? Math.max(1, (this.full - view) / (shown - view)) : 1;
  }

  draw() {
    if (!this.element.isConnected || !this.element.clientHeight) return;
    this.measure();
    const top = this.element.scrollTop, offset = top * this.ratio, view = this.element.clientHeight;
    const first = Math.max(0, Math.floor(offset / this.height) - 2) * this.columns;
    const last = Math.min(this.total ?? PAGE, (Math.ceil((offset + view) / this.height) + 2) * this.columns);
    for (const [index, cell] of this.cells) {
      if (index < first || index >= last) { cell.remove(); this.cells.delete(index); }
    }
    for (let index = first; index < last && this.total !== null; index += 1) {
      const cell = this.cell(index);
      const line = Math.floor(index / this.columns);
      const x = EDGE + (index % this.columns) * (this.cellWidth + GAP), y = top + line * this.height - offset + 4;
      cell.style.transform = `translate(${x}px, ${y}px)`;
    }
    this.load(first, Math.max(last, 1));
    this.element.setAttribute("aria-activedescendant", `${this.name}-${this.active}`);
  }

  cell(index) {
    const item = this.item(index);
    let cell = this.cells.get(index);
    if (!cell || (item && cell.dataset.waiting)) {
      cell?.remove();
      cell = make("div", { class: "cell", id: `${this.name}-${index}`, role: "option", "aria-setsize": this.total, "aria-posinset": index + 1 });
      cell.style.width = `${this.cellWidth}px`;
      cell.style.height = `${this.height - GAP}px`;
      if (item) {
        const inside = this.render(item);
        inside.style.height = "100%";
        cell.append(inside);
        cell.setAttribute("aria-label", this.describe(item));
        cell.addEventListener("click", () => { this.choose(index); this.open(item); });
      } else {
        cell.dataset.waiting = "1";
        cell.classList.add("waiting");
      }
      this.cells.set(index, cell);
      this.element.append(cell);
    }
    cell.classList.toggle("active", index === this.active);
    cell.setAttribute("aria-selected", String(index === this.active));
    return cell;
  }

  load(first, last) {
    const from = Math.floor(first / PAGE), to = Math.floor((last - 1) / PAGE);
    for (const [number, control] of this.waiting) if (number < from || number > to) { control.abort(); this.waiting.delete(number); }
    for (let number = from; number <= to; number += 1) if (!this.pages.has(number) && !this.waiting.has(number)) this.ask(number);
  }

  async ask(number) {
    const control = new AbortController(), generation = this.generation;
    this.waiting.set(number, control);
    try {
      const found = await this.fetch(number * PAGE, PAGE, control.signal);
      if (generation !== this.generation) return;
      this.waiting.delete(number);
      this.pages.set(number, found.items);
      while (this.pages.size > MOST_PAGES) this.pages.delete(this.pages.keys().next().value);
      if (this.total !== found.total) {
        this.total = found.total;
        this.active = Math.min(this.active, Math.max(0, found.total - 1));
        this.empty?.remove();
        if (!found.total) this.element.append((this.empty = make("p", { class: "empty" }, "Nothing fits these conditions.")));
        this.moved(this);
      }
      this.soon();
    } catch (error) {
      if (error.name === "AbortError" || generation !== this.generation) return;
      this.waiting.delete(number);
      this.total ??= 0;
      this.empty?.remove();
      this.element.append((this.empty = make("p", { class: "empty" }, error.message)));
    }
  }

  choose(index) {
    if (!this.total) return;
    this.active = Math.max(0, Math.min(this.total - 1, index));
    const y = Math.floor(this.active / this.columns) * this.height, view = this.element.clientHeight;
    const offset = this.element.scrollTop * this.ratio;
    if (y < offset) this.element.scrollTop = y / this.ratio;
    else if (y + this.height > offset + view) this.element.scrollTop = (y + this.height - view + 6) / this.ratio;
    this.soon();
  }

  key(event) {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const lines = Math.max(1, Math.floor(this.element.clientHeight / this.height));
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -lines * this.columns, PageDown: lines * this.columns, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      event.preventDefault();
      this.choose(this.active + steps[event.key]);
    } else if (event.key === "Enter" && this.current) {
      event.preventDefault();
      this.open(this.current);
    }
  }
}
