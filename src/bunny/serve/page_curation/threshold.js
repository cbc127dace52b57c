// What another threshold would do: the exact curve of the run's links, a slider, and the pairs that make the difference.
import { get, notice } from "./api.js";
import { count, face, make } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg", WIDTH = 900, HEIGHT = 250, LEFT = 64, BOTTOM = 34, TOP = 12, RIGHT = 14;

export class Threshold {
  constructor(open) {
    this.open = open;
    this.figures = make("div", { class: "figures", role: "status", "aria-live": "polite" });
    this.slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Threshold" });
    this.slider.addEventListener("input", () => this.moved());
    this.drawing = make("div");
    this.said = make("p", { class: "soft" });
    this.pairs = make("div", { class: "pairs" });
    this.element = make("div", { class: "scroll" }, make("div", { class: "panel" }, this.figures, this.drawing, this.slider,
      make("p", { class: "soft" }, "Exact counts of the duplicate step. The steps after it would see other rows: ", make("code", {}, "bunny curate again"), " gives the whole answer.")),
      this.said, this.pairs);
    this.load();
  }

  async load() {
    try { Object.assign(this, await get("api/thresholds")); } catch (error) { return notice(error.message); }
    this.slider.max = this.grid.length - 1;
    const nearest = this.used === null ? 0 : this.grid.reduce((best, value, place) => Math.abs(value - this.used) < Math.abs(this.grid[best] - this.used) ? place : best, 0);
    this.usedPlace = nearest;
    this.slider.value = nearest;
    this.moved();
  }

  moved() {
    const place = Number(this.slider.value), value = this.grid[place], change = this.removed[place] - this.removed[this.usedPlace];
    this.slider.setAttribute("aria-valuetext", `${value.toFixed(3)}, ${count(this.removed[place])} go`);
    const other = change > 0 ? "more than" : change < 0 ? "fewer than" : "other than";
    this.figures.replaceChildren(figure(value.toFixed(3), "cosine from which two are linked"), figure(count(this.removed[place]), "go as near duplicates"),
      figure(count(Math.abs(change)), `${other} at the run's ${this.grid[this.usedPlace].toFixed(3)}`), (this.groups = figure("…", "duplicate groups")), (this.largest = figure("…", "pictures in the largest")));
    this.drawing.replaceChildren(this.curve(place));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(value, change), 120);
  }

  async ask(value, change) {
    let found;
    try { found = await get("api/threshold", { at: value }); } catch (error) { return notice(error.message); }
    if (this.grid[Number(this.slider.value)] !== value) return;
    this.groups.firstChild.textContent = found.groups ? count(found.groups) : "–";
    this.largest.firstChild.textContent = found.largest ? count(found.largest) : "–";
    const many = count(found.pairs_count);
    this.said.textContent = !found.pairs_count ? "This is what the run used. Move the slider to see which pairs another threshold would join or part."
      : change > 0 ? `${many} links more would count. Those nearest to the run's threshold:` : `${many} links would count no more. Those nearest to the run's threshold:`;
    this.pairs.replaceChildren(...found.pairs.map(({ cosine, one, other }) => make("div", { class: "twosome" },
      face(one, this.open), other ? face(other, this.open) : "", make("p", { class: "num" }, `in one group up to ${cosine.toFixed(3)}`))));
  }

  curve(place) {
    const [low, high] = [this.grid[0], this.grid.at(-1)], most = nice(Math.max(...this.removed, 1));
    const x = (value) => LEFT + ((value - low) / (high - low || 1)) * (WIDTH - LEFT - RIGHT), y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - TOP);
    const points = this.grid.map((value, index) => `${x(value).toFixed(1)},${y(this.removed[index]).toFixed(1)}`).join(" ");
    const here = x(this.grid[place]), used = x(this.grid[this.usedPlace]);
    const drawing = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curve", role: "img", "aria-label": `Rows that go at thresholds from ${low} to ${high}` });
    for (const level of [0, most / 2, most]) drawing.append(shape("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(level), y2: y(level) }), words(LEFT - 8, y(level) + 4, count(level), "end"));
    drawing.append(shape("polygon", { class: "area", points: `${x(low)},${y(0)} ${points} ${x(high)},${y(0)}` }), shape("polyline", { class: "line", points }),
      shape("line", { class: "used", x1: used, x2: used, y1: TOP, y2: HEIGHT - BOTTOM }), shape("line", { class: "here", x1: here, x2: here, y1: TOP, y2: HEIGHT - BOTTOM }),
      shape("circle", { class: "dot", cx: here, cy: y(this.removed[place]), r: 5 }));
    const step = [0.01, 0.02, 0.05, 0.1, 0.25].find((size) => (high - low) / size <= 11) ?? 0.5;
    for (let tick = Math.ceil(low / step - 1e-6); tick * step <= high + 1e-6; tick += 1) drawing.append(words(x(tick * step), HEIGHT - 12, (tick * step).toFixed(2), "middle"));
    drawing.addEventListener("pointerdown", (event) => this.point(event, drawing));
    drawing.addEventListener("pointermove", (event) => event.buttons && this.point(event, drawing));
    return drawing;
  }

  point(event, drawing) {
    const box = drawing.getBoundingClientRect(), inside = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    const wanted = this.grid[0] + inside * (this.grid.at(-1) - this.grid[0]);
    this.slider.value = this.grid.reduce((best, value, place) => Math.abs(value - wanted) < Math.abs(this.grid[best] - wanted) ? place : best, 0);
    this.moved();
  }
}

const figure = (value, name) => make("div", {}, make("b", {}, value), make("span", {}, name));

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function words(x, y, text, anchor) {
  const element = shape("text", { x, y, "text-anchor": anchor });
  element.textContent = text;
  return element;
}

function nice(top) {
  const power = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 5, 10].map((step) => step * power).find((value) => value >= top);
}
