// The panel beside the grid: everything that is known of one sample, and the buttons to decide otherwise.
import { get, notice, post } from "./api.js";
import { count, face, fate, frame, make } from "./elements.js";

export class Detail {
  // show: {cluster(label), group(label), open(row), changed(item)}
  constructor(element, show) {
    Object.assign(this, { element, show, row: null });
  }

  get isOpen() { return !this.element.hidden; }

  close() {
    this.element.hidden = true;
    this.row = null;
  }

  async open(row) {
    this.row = row;
    try {
      const sample = await get(`api/sample/${row}`);
      if (this.row === row) this.draw(sample);
    } catch (error) { notice(error.message); }
  }

  async decide(row, keep, note = undefined) {
    try {
      const item = await post("api/override", { row, keep, note: note ?? (this.row === row ? this.note?.value ?? "" : "") });
      this.show.changed(item);
      if (this.row === row) this.open(row);
    } catch (error) { notice(error.message); }
  }

  draw(sample) {
    const open = (item) => this.show.open(item.row);
    const strip = (title, items, total = items.length, noted = () => "") => items.length ? [
      make("h3", {}, `${title}${total > 1 ? ` (${count(total)})` : ""}`),
      make("div", { class: "strip" }, ...items.map((item) => face(item, open, noted(item)))),
    ] : [];
    this.element.replaceChildren(
      make("div", { class: "head" }, make("h2", {}, sample.caption || sample.id),
        make("button", { class: "plain", "aria-label": "Close", title: "Close (Esc)", onclick: () => this.show.close() }, "✕")),
      verdict(sample), pair(sample, open), this.acts(sample), this.ways(sample),
      ...strip("Stands for", sample.stands_for, sample.stands_for_count, (item) => item.twin_cosine?.toFixed(3) ?? ""),
      ...strip(sample.cluster >= 0 ? "Most alike in its cluster" : "Most alike", sample.neighbours, 1, (item) => `${item.kept ? "✓" : "✕"} ${item.cosine.toFixed(3)}`),
      make("h3", {}, "Everything known"), facts(sample));
    this.element.hidden = false;
    this.element.scrollTop = 0;
  }

  acts(sample) {
    const button = (keep, words, key) => make("button", {
      "aria-pressed": String(sample.changed ? sample.kept === keep : keep === null), onclick: () => this.decide(sample.row, keep),
    }, words, " ", make("kbd", {}, key));
    this.note = make("textarea", { "aria-label": "Note", placeholder: "Why? (a note for your colleagues)", rows: 1 });
    this.note.value = sample.note;
    this.note.addEventListener("change", () => { if (sample.changed) this.decide(sample.row, sample.kept, this.note.value); });
    return make("div", {}, make("div", { class: "acts", role: "group", "aria-label": "Your decision" },
      button(true, "Keep", "k"), button(false, "Drop", "d"), button(null, "As the run decided", "u")), this.note);
  }

  ways(sample) {
    const ways = [];
    if (sample.cluster >= 0) ways.push(make("button", { onclick: () => this.show.cluster(sample.cluster) }, `Its cluster, ${sample.cluster}`));
    if (sample.group >= 0) ways.push(make("button", { onclick: () => this.show.group(sample.group) }, "Its duplicate group"));
    return ways.length ? make("div", { class: "acts" }, ...ways) : "";
  }
}

function verdict(sample) {
  const kind = `verdict${sample.kept ? "" : " gone"}${sample.changed ? " changed" : ""}`;
  const run = sample.record.kept ? "The run keeps it." : `Dropped by “${sample.step.replaceAll("_", " ")}”: ${sample.reason.replaceAll("_", " ")}.`;
  return make("p", { class: kind }, sample.changed || sample.kept ? make("b", {}, fate(sample)) : make("b", {}, "✕ "), " ", sample.kept && !sample.changed ? "" : run);
}

function pair(sample, open) {
  const figure = (item, words, action) => make("figure", {}, frame(item, "large"),
    make("figcaption", {}, words, action ? make("button", { onclick: () => open(item) }, item.caption || item.id) : ""));
  const other = sample.twin ?? sample.link;
  if (!other) return make("div", { class: "pair lone" }, figure(sample, sample.text && sample.text !== sample.caption ? sample.text : ""));
  const cosine = sample.twin ? sample.twin_cosine : sample.record.link_cosine;
  const alike = cosine === null || cosine === undefined ? "" : `, cosine ${cosine.toFixed(3)}`;
  const words = sample.twin ? `${other.kept ? "stays" : "also gone"}${alike}: ` : `linked to it${alike}: `;
  return make("div", { class: "pair" }, figure(sample, sample.caption), figure(other, words, true));
}

function facts(sample) {
  const said = { ...sample.record, ...(sample.where ? { picture: sample.where.join(", ") } : {}) };
  const written = (value) => typeof value === "number" && !Number.isInteger(value) ? value.toFixed(4) : String(value);
  return make("table", { class: "facts" }, make("tbody", {}, ...Object.entries(said).filter(([, value]) => value !== "").map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row" }, name.replaceAll("_", " ")), make("td", {}, written(value))))));
}
