// A small part of Markdown as DOM nodes: paragraphs, headings, lists, quotes, code, bold, italics. Nothing else:
// no HTML, no links, no pictures, so that no answer can run, load or fetch anything.
import { button, copy, make } from "./elements.js";

const FENCE = /^\s*(```+|~~~+)\s*([\w+#.-]*)\s*$/;
const HEADING = /^(#{1,4})\s+(.+?)\s*#*$/;
const ITEM = /^(\s*)([-*+•]|\d{1,9}[.)])\s+(.*)$/;
const INLINE = /(`{1,4})([\s\S]+?)\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*(?!\*)|(?<![\w*])\*(?=[^\s*])([^*]*[^\s*])\*(?![\w*])/;

export function rendered(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n"), blocks = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at], fence = FENCE.exec(line), heading = HEADING.exec(line);
    if (fence) [blocks[blocks.length], at] = code(lines, at, fence);
    else if (!line.trim()) at += 1;
    else if (heading) { blocks.push(make("p", { class: "heading" }, ...inline(heading[2]))); at += 1; }
    else if (ITEM.test(line)) [blocks[blocks.length], at] = list(lines, at);
    else if (/^\s*>/.test(line)) [blocks[blocks.length], at] = quote(lines, at);
    else [blocks[blocks.length], at] = paragraph(lines, at);
  }
  return blocks;
}

function code(lines, start, [, marks, language]) {
  let end = start + 1;
  while (end < lines.length && !(lines[end].trim().startsWith(marks) && FENCE.test(lines[end]))) end += 1;
  const words = lines.slice(start + 1, end).join("\n");
  const act = button("Copy the code", "copy", () => copy(words, "Code copied"));
  const head = make("div", { class: "listing-head" }, make("span", {}, language || "code"), act);
  const body = make("pre", { tabindex: "0", "aria-label": `${language || ""} code`.trim() }, make("code", {}, words));
  return [make("div", { class: "listing" }, head, body), end + 1];
}

// Lines of one list, deeper ones as a list of the item above them.
function list(lines, start) {
  const first = ITEM.exec(lines[start]), depth = first[1].length, numbered = /\d/.test(first[2]);
  const made = make(numbered ? "ol" : "ul", numbered && parseInt(first[2], 10) !== 1 ? { start: parseInt(first[2], 10) } : {});
  let at = start;
  while (at < lines.length) {
    const item = ITEM.exec(lines[at]);
    if (!item) {
      const goesOn = lines[at].trim() && /^\s{2,}/.test(lines[at]) && made.lastChild;
      if (!goesOn) { if (!lines[at].trim() && ITEM.exec(lines[at + 1] || "")?.[1].length >= depth) { at += 1; continue; } break; }
      made.lastChild.append(" ", ...inline(lines[at].trim()));
      at += 1;
    } else if (item[1].length > depth + 1) {
      const [inner, next] = list(lines, at);
      (made.lastChild || made).append(inner);
      at = next;
    } else if (item[1].length < depth - 1 || /\d/.test(item[2]) !== numbered) break;
    else { made.append(make("li", {}, ...inline(item[3]))); at += 1; }
  }
  return [made, at];
}

function quote(lines, start) {
  let end = start;
  while (end < lines.length && /^\s*>/.test(lines[end])) end += 1;
  const words = lines.slice(start, end).map((line) => line.replace(/^\s*>\s?/, ""));
  return [make("blockquote", {}, ...spread(words)), end];
}

function paragraph(lines, start) {
  let end = start + 1;
  const stops = (line) => !line.trim() || FENCE.test(line) || HEADING.test(line) || ITEM.test(line) || /^\s*>/.test(line);
  while (end < lines.length && !stops(lines[end])) end += 1;
  return [make("p", {}, ...spread(lines.slice(start, end))), end];
}

// Lines one below the other, as the model wrote them.
function spread(lines) {
  return lines.flatMap((line, number) => (number ? [make("br"), ...inline(line)] : inline(line)));
}

function inline(text) {
  const nodes = [];
  let rest = text;
  for (let found; (found = INLINE.exec(rest)); rest = rest.slice(found.index + found[0].length)) {
    if (found.index) nodes.push(rest.slice(0, found.index));
    if (found[1]) nodes.push(make("code", {}, found[2].trim() || found[2]));
    else if (found[3] !== undefined) nodes.push(make("strong", {}, ...inline(found[3])));
    else nodes.push(make("em", {}, ...inline(found[4])));
  }
  if (rest) nodes.push(rest);
  return nodes;
}
