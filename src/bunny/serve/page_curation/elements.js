// Small pieces of page. Text is always set as text, never as markup: captions come from the web.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const count = (number) => Number(number).toLocaleString("en");

export function fate(item) {
  if (item.changed) return item.kept ? "✎ kept by you" : "✎ dropped by you";
  if (item.kept) return "✓ stays";
  const cosine = item.twin_cosine === null ? "" : ` ${item.twin_cosine.toFixed(3)}`;
  return `✕ ${item.step}${cosine}`;
}

export function spoken(item) {
  const why = item.kept || item.changed ? "" : `, ${item.reason}`;
  return `${item.caption || item.id}: ${fate(item).slice(2)}${why}`;
}

export function frame(item, size = "") {
  const box = make("div", { class: "frame" }, item.picture ? "" : "no picture");
  if (item.picture) {
    const image = make("img", { alt: "", decoding: "async", src: `picture/${item.row}${size && "?size=" + size}` });
    image.addEventListener("error", () => image.replaceWith("no picture"));
    box.append(image);
  }
  return box;
}

export function card(item, note = "") {
  const kind = `card${item.kept ? "" : " gone"}${item.changed ? " changed" : ""}`;
  const words = make("div", { class: "words" },
    make("span", { class: "caption", title: item.caption }, item.caption || item.id),
    make("span", { class: "fate", title: item.reason }, note || fate(item)));
  return make("div", { class: kind, "data-row": item.row }, frame(item), words);
}

// A small card inside an option of a list: a short cut for the mouse; the keyboard opens the option itself.
export function glance(item, open) {
  const made = card(item);
  made.classList.add("face");
  made.addEventListener("click", (event) => { event.stopPropagation(); open(item); });
  return made;
}

// A card that is a button of its own, for strips of faces.
export function face(item, open, note = "") {
  const made = card(item, note);
  made.classList.add("face");
  made.setAttribute("role", "button");
  made.setAttribute("tabindex", "0");
  made.setAttribute("aria-label", spoken(item) + (note ? `, ${note}` : ""));
  const act = (event) => { event.stopPropagation(); open(item); };
  made.addEventListener("click", act);
  made.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(event); } });
  return made;
}
