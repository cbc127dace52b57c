// Small pieces of page. Text is always set as text, never as markup: answers and names come from elsewhere.

const PATHS = {
  menu: "M4 6h16M4 12h16M4 18h10",
  plus: "M12 5v14M5 12h14",
  sliders: "M4 7h9M19 7h1M4 17h1M11 17h9M16 4.5v5M8 14.5v5",
  help: "M9.2 9.2a2.9 2.9 0 1 1 4.3 2.5c-.9.5-1.5 1.1-1.5 2.1M12 17.2v.1",
  light: "M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6 7 7M17 17l1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4M15.5 12a3.5 3.5 0 1 1-7 0 3.5 3.5 0 0 1 7 0",
  dark: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5",
  auto: "M12 4a8 8 0 1 0 0 16M12 4a8 8 0 0 1 0 16M12 4v16M15 8.5h3.2M15 12h5M15 15.5h3.2",
  upload: "M12 15V4M7.5 8.5 12 4l4.5 4.5M4 15v4h16v-4",
  download: "M12 4v11M7.5 10.5 12 15l4.5-4.5M4 16v4h16v-4",
  trash: "M5 7h14M10 4h4M7 7l1 13h8l1-13M10.5 11v5.5M13.5 11v5.5",
  picture: "M4 5h16v14H4zM4 16l4.5-4.5 3.5 3.5 3-3 5 5M9.5 9.2a1 1 0 1 1-2 0 1 1 0 0 1 2 0",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  again: "M19.5 12a7.5 7.5 0 1 1-2.2-5.3L20 9.2M20 4v5.2h-5.2",
  edit: "M4 20l1-4L16.5 4.5l3 3L8 19zM14 7l3 3",
  code: "M8.5 7 4 12l4.5 5M15.5 7l4.5 5-4.5 5",
  down: "M12 5v14M6 13l6 6 6-6",
  back: "M14.5 6l-6 6 6 6",
  on: "M9.5 6l6 6-6 6",
  columns: "M4 5h16v14H4zM12 5v14",
  warn: "M12 4 2.8 20h18.4zM12 10v4.5M12 17.2v.1",
};

export const place = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "icon") element.prepend(icon(value));
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  picture.setAttribute("viewBox", "0 0 24 24");
  picture.setAttribute("aria-hidden", "true");
  picture.setAttribute("class", `icon ${name}`);
  path.setAttribute("d", PATHS[name]);
  picture.append(path);
  return picture;
}

// Puts the drawing that `data-icon` names into every button of the page's own markup.
export function drawIcons() {
  for (const button of document.querySelectorAll("[data-icon]")) button.prepend(icon(button.dataset.icon));
}

export function button(name, drawing, act, more = {}) {
  return make("button", { type: "button", class: "quiet", "aria-label": name, title: name, icon: drawing, onclick: act, ...more });
}

// A word at the bottom of the page for some seconds, with a way back where there is one.
export function toast(text, undo = null) {
  const shown = place("toast");
  const back = undo && make("button", { type: "button", class: "quiet", onclick: () => { shown.replaceChildren(); undo(); } }, "Undo");
  shown.replaceChildren(make("span", {}, text), back || "");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => shown.replaceChildren(), undo ? 9000 : 4500);
}

// Browsers give the clipboard to safe addresses only; elsewhere an older way still works.
export async function copy(text, said) {
  const done = navigator.clipboard ? await navigator.clipboard.writeText(text).then(() => true, () => false) : oldCopy(text);
  toast(done ? said : "This browser does not let the page copy: select the text and copy it yourself.");
}

function oldCopy(text) {
  const field = make("textarea", { class: "unseen", "aria-hidden": "true" }), before = document.activeElement;
  field.value = text;
  (before?.closest("dialog") ?? document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus();
  return done;
}

export const seconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;

export const count = (number, one, many = `${one}s`) => `${Number(number).toLocaleString("en")} ${number === 1 ? one : many}`;

export function ago(time) {
  const days = Math.floor((new Date().setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / 864e5);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days < 7) return "This week";
  return new Date(time).toLocaleDateString("en", { month: "long", year: "numeric" });
}
