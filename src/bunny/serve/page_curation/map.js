// The pool on a plane: one dot a picture, drawn on a canvas; hover for the picture, draw a lasso or a box to select.
import { bytes, get, notice, post } from "./api.js";
import { count, fate, frame, make } from "./elements.js";

const CELL = 24; // pixels of a square of the index by which dots are found

export class PictureMap {
  // show: {open(row), selection(name)}; steps: labels in order
  constructor(show, steps) {
    Object.assign(this, { show, steps, scale: 1, shiftX: 0, shiftY: 0, tool: "lasso", colour: "fate", picked: [] });
    this.canvas = make("canvas", { tabindex: "0", role: "img", "aria-label": "Map of the pictures: near ones look alike. Arrow keys move, plus and minus zoom." });
    this.tip = make("div", { class: "tip", hidden: true });
    this.legend = make("div", { class: "legend" });
    this.bottom = make("div", { class: "picked", hidden: true });
    this.tools = segments("Mouse", { lasso: "Lasso", box: "Box", move: "Move" }, () => this.tool, (tool) => { this.tool = tool; this.canvas.classList.toggle("moving", tool === "move"); });
    this.colours = segments("Colour", { fate: "Stays or goes", cluster: "Cluster", step: "Step" }, () => this.colour, (colour) => { this.colour = colour; this.paint(); this.draw(); });
    const all = make("button", { class: "plain", onclick: () => this.pick(this.seen()) }, "Select what is in view");
    const home = make("button", { class: "plain", onclick: () => { this.scale = 1; this.shiftX = this.shiftY = 0; this.soon(); } }, "Whole map");
    this.element = make("div", { class: "fill" }, make("div", { class: "bar" }, this.tools, this.colours, all, home, (this.said = make("span", { class: "soft spread num" }))),
      make("div", { class: "map" }, this.canvas, this.legend, this.tip, this.bottom));
    this.listen();
    this.resized = new ResizeObserver(() => this.soon());
    this.resized.observe(this.canvas);
    this.theme = matchMedia("(prefers-color-scheme: dark)");
    this.theme.onchange = () => { this.paint(); this.draw(); };
    this.load();
  }

  stop() { this.resized.disconnect(); this.theme.onchange = null; }

  async load() {
    this.said.textContent = "Drawing the map …";
    let data;
    try { data = await bytes("api/map"); } catch (error) { this.said.textContent = ""; return notice(error.message); }
    const size = new DataView(data).getUint32(0, true), at = (part) => 4 + part * 4 * size;
    this.size = size;
    this.rows = new Int32Array(data, at(0), size);
    this.x = new Float32Array(data, at(1), size);
    this.y = new Float32Array(data, at(2), size);
    this.cluster = new Int32Array(data, at(3), size);
    this.flags = new Uint8Array(data, at(4), size);
    this.said.textContent = `${count(size)} pictures, by the two directions in which they differ most`;
    this.paint();
    this.draw();
  }

  // Colours of all dots, worked out once.
  paint() {
    if (!this.rows) return;
    const style = getComputedStyle(document.documentElement), named = (name) => style.getPropertyValue(name).trim();
    const dark = this.theme.matches, hue = (number) => `oklch(${dark ? 0.76 : 0.56} 0.14 ${(number * 137.5) % 360})`;
    const kept = named("--good"), gone = named("--bad"), entries = [];
    if (this.colour === "fate") entries.push(["stays", kept, true], ["goes", gone, false]);
    if (this.colour === "step") { entries.push(["stays", kept, true]); this.steps.forEach((step, place) => this.has(place + 1) && entries.push([`goes: ${step}`, hue(place + 1), false])); }
    this.colour_of = (dot) => {
      const stays = this.flags[dot] & 1;
      if (this.colour === "cluster") return this.cluster[dot] < 0 ? gone : hue(this.cluster[dot]);
      return stays ? kept : this.colour === "fate" ? gone : hue(this.flags[dot] >> 1);
    };
    this.legend.replaceChildren(...entries.map(([name, colour, full]) => {
      const dot = make("i");
      dot.style.borderColor = colour;
      if (full) dot.style.background = colour;
      return make("span", {}, dot, name);
    }), this.colour === "cluster" ? "one colour a cluster; filled dots stay, rings go" : "");
  }

  has(step) { return this.flags.some((flag) => flag >> 1 === step); }

  soon() { this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.draw(); }); }

  place(dot) {
    const half = Math.min(this.wide, this.tall) / 2 - 24;
    const stretch = Math.min(1.7, Math.max(1, this.wide / this.tall));
    return [this.wide / 2 + (this.x[dot] * half * stretch + this.shiftX) * this.scale, this.tall / 2 - (this.y[dot] * half + this.shiftY) * this.scale];
  }

  draw() {
    const { clientWidth: wide, clientHeight: tall } = this.canvas, dense = window.devicePixelRatio || 1;
    if (!this.rows || !wide) return;
    Object.assign(this, { wide, tall });
    this.canvas.width = wide * dense;
    this.canvas.height = tall * dense;
    const pen = this.canvas.getContext("2d");
    pen.scale(dense, dense);
    this.index = new Map();
    const radius = Math.min(6, (this.size > 8000 ? 1.8 : 2.6) * Math.sqrt(this.scale));
    for (const keptPass of [0, 1]) for (let dot = 0; dot < this.size; dot += 1) {
      if ((this.flags[dot] & 1) !== keptPass) continue;
      const [x, y] = this.place(dot);
      if (x < -9 || y < -9 || x > wide + 9 || y > tall + 9) continue;
      const square = `${Math.floor(x / CELL)},${Math.floor(y / CELL)}`;
      this.index.has(square) ? this.index.get(square).push(dot) : this.index.set(square, [dot]);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 7);
      if (keptPass) { pen.fillStyle = this.colour_of(dot); pen.globalAlpha = 0.85; pen.fill(); }
      else { pen.strokeStyle = this.colour_of(dot); pen.globalAlpha = 0.7; pen.lineWidth = 1; pen.stroke(); }
    }
    pen.globalAlpha = 1;
    const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--ink").trim();
    pen.strokeStyle = style.getPropertyValue("--accent").trim();
    pen.lineWidth = 2;
    for (const dot of this.picked.length < 4000 ? this.picked : []) { const [x, y] = this.place(dot); pen.beginPath(); pen.arc(x, y, radius + 2, 0, 7); pen.stroke(); }
    if (this.path?.length > 1) { pen.strokeStyle = ink; pen.lineWidth = 1.5; pen.setLineDash([5, 4]); pen.beginPath(); this.path.forEach(([x, y]) => pen.lineTo(x, y)); pen.closePath(); pen.stroke(); }
    if (this.over !== undefined) { const [x, y] = this.place(this.over); pen.setLineDash([]); pen.strokeStyle = ink; pen.lineWidth = 2; pen.beginPath(); pen.arc(x, y, radius + 3, 0, 7); pen.stroke(); }
  }

  nearest(x, y) {
    let best, distance = 14 * 14;
    for (let i = -1; i <= 1; i += 1) for (let j = -1; j <= 1; j += 1) for (const dot of this.index?.get(`${Math.floor(x / CELL) + i},${Math.floor(y / CELL) + j}`) ?? []) {
      const [a, b] = this.place(dot), far = (a - x) ** 2 + (b - y) ** 2;
      if (far < distance) [best, distance] = [dot, far];
    }
    return best;
  }

  listen() {
    const at = (event) => { const box = this.canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    this.canvas.addEventListener("pointerdown", (event) => { this.canvas.setPointerCapture(event.pointerId); this.from = at(event); this.last = this.from; this.dragged = false; this.path = null; });
    this.canvas.addEventListener("pointermove", (event) => {
      const here = at(event);
      if (!this.from) return this.hover(here);
      if (Math.hypot(here[0] - this.from[0], here[1] - this.from[1]) > 4) this.dragged = true;
      if (this.tool === "move" || event.shiftKey) { this.shiftX += (here[0] - this.last[0]) / this.scale; this.shiftY -= (here[1] - this.last[1]) / this.scale; }
      else if (this.tool === "box") this.path = [this.from, [here[0], this.from[1]], here, [this.from[0], here[1]]];
      else (this.path ??= [this.from]).push(here);
      this.last = here;
      this.soon();
    });
    this.canvas.addEventListener("pointerup", (event) => {
      const path = this.path;
      this.from = this.path = null;
      if (!this.dragged) { const dot = this.nearest(...at(event)); if (dot !== undefined) this.show.open(this.rows[dot]); }
      else if (path?.length > 2) this.pick(this.inside(path));
      this.soon();
    });
    this.canvas.addEventListener("pointerleave", () => { this.over = undefined; this.tip.hidden = true; this.soon(); });
    this.canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY / 400), ...at(event)); }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const step = 60 / this.scale, moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (event.key in moves) { this.shiftX += moves[event.key][0]; this.shiftY += moves[event.key][1]; }
      else if (event.key === "+" || event.key === "=") this.zoom(1.3);
      else if (event.key === "-") this.zoom(1 / 1.3);
      else return;
      event.preventDefault();
      this.soon();
    });
  }

  zoom(factor, x = this.wide / 2, y = this.tall / 2) {
    const before = this.scale;
    this.scale = Math.min(60, Math.max(0.6, before * factor));
    const kept = 1 / this.scale - 1 / before; // the point under the mouse stays where it is
    this.shiftX += (x - this.wide / 2) * kept;
    this.shiftY -= (y - this.tall / 2) * kept;
    this.soon();
  }

  hover([x, y]) {
    const dot = this.nearest(x, y);
    if (dot === this.over) return;
    this.over = dot;
    this.tip.hidden = true;
    this.soon();
    clearTimeout(this.timer);
    if (dot !== undefined) this.timer = setTimeout(() => this.tell(dot), 60);
  }

  async tell(dot) {
    const found = await get(`api/brief/${this.rows[dot]}`).catch(() => null);
    if (!found || this.over !== dot) return;
    const [x, y] = this.place(dot);
    this.tip.replaceChildren(...frame(found).childNodes, make("div", {}, found.caption || found.id), make("div", { class: "soft" }, fate(found)));
    this.tip.hidden = false;
    this.tip.style.left = `${Math.min(x + 16, this.wide - 180)}px`;
    this.tip.style.top = `${Math.max(6, Math.min(y + 16, this.tall - 210))}px`;
  }

  seen() {
    const found = [];
    for (const dots of this.index?.values() ?? []) found.push(...dots);
    return found;
  }

  inside(path) {
    const xs = path.map(([x]) => x), ys = path.map(([, y]) => y), found = [];
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    for (const dot of this.seen()) {
      const [x, y] = this.place(dot);
      if (x < left || x > right || y < top || y > bottom) continue;
      let odd = false;
      for (let i = 0, j = path.length - 1; i < path.length; j = i, i += 1) {
        const [a, b] = path[i], [c, d] = path[j];
        if (b > y !== d > y && x < ((c - a) * (y - b)) / (d - b) + a) odd = !odd;
      }
      if (odd) found.push(dot);
    }
    return found;
  }

  pick(dots) {
    this.picked = dots;
    this.bottom.hidden = !dots.length;
    const stay = dots.filter((dot) => this.flags[dot] & 1).length;
    const showThem = make("button", { class: "strong", onclick: async () => {
      try { this.show.selection((await post("api/selection", { rows: dots.map((dot) => this.rows[dot]) })).selection); } catch (error) { notice(error.message); }
    } }, "Show them");
    this.bottom.replaceChildren(make("span", { role: "status" }, `${count(dots.length)} pictures, ${count(stay)} stay`), showThem, make("button", { class: "plain", onclick: () => this.pick([]) }, "Clear"));
    this.draw();
    if (dots.length) showThem.focus();
  }
}

function segments(label, choices, current, choose) {
  const group = make("div", { class: "segments", role: "group", "aria-label": label });
  const renew = () => group.replaceChildren(...Object.entries(choices).map(([key, name]) => make("button", { "aria-pressed": String(current() === key), onclick: () => { choose(key); renew(); group.querySelector('[aria-pressed="true"]').focus(); } }, name)));
  renew();
  return group;
}
