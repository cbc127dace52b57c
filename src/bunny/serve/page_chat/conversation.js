// A conversation is a tree of turns. A turn is a question (text, pictures) with one answer per model that was asked.
// Editing a question or asking again makes a sibling; what stood there before stays in its own branch.
//
// talk: { version, id, title, created, changed, turns: [turn], head }    head: id of the last turn shown, or null
// turn: { id, parent, text, pictures: [picture], answers: [answer] }     picture: { name, url (data:), width, height }
// answer: { model, text, state, settings, error?, fix?, figures? }       state: see STATES

export const STATES = ["running", "done", "length", "stopped", "cut", "failed"];
const PICTURE = /^data:image\/(png|jpeg|webp|gif|bmp);base64,[A-Za-z0-9+/=]+$/;

const identity = () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export function fresh() {
  const now = Date.now();
  return { version: 1, id: identity(), title: "", created: now, changed: now, turns: [], head: null };
}

export const find = (talk, id) => talk.turns.find((turn) => turn.id === id);

// The turns from the first to the given one.
export function line(talk, id = talk.head) {
  const found = [];
  for (let turn = find(talk, id); turn; turn = find(talk, turn.parent)) found.unshift(turn);
  return found;
}

export const siblings = (talk, turn) => talk.turns.filter((other) => other.parent === turn.parent);

export function add(talk, parent, text, pictures, answers) {
  const turn = { id: identity(), parent, text, pictures, answers };
  talk.turns.push(turn);
  talk.head = turn.id;
  talk.title ||= text.trim().slice(0, 80) || pictures[0]?.name || "";
  talk.changed = Date.now();
  return turn;
}

// Shows another branch: the given turn, then the newest turns below it.
export function turnTo(talk, turn) {
  let last = turn;
  for (let below; (below = talk.turns.filter((other) => other.parent === last.id)).length;) last = below.at(-1);
  talk.head = last.id;
}

// What a model is told: the turns before with its own answers (another's where it was not asked), then the question.
// A turn that nobody answered is left out.
export function messages(talk, turn, model, system) {
  const told = system.trim() ? [{ role: "system", content: system.trim() }] : [];
  for (const earlier of line(talk, turn.parent)) {
    const answer = answerFor(earlier, model);
    if (answer) told.push(question(earlier), { role: "assistant", content: answer.text.trim() });
  }
  return [...told, question(turn)];
}

export function answerFor(turn, model) {
  const said = turn.answers.filter((answer) => answer.text.trim());
  return said.find((answer) => answer.model === model) ?? said[0];
}

function question({ text, pictures }) {
  if (!pictures.length) return { role: "user", content: text };
  const shown = pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return { role: "user", content: text ? [...shown, { type: "text", text }] : shown };
}

// An exported conversation, checked field by field: a file may come from anywhere. Throws an Error in words.
export function imported(text) {
  let tree;
  try { tree = JSON.parse(text); } catch { throw new Error("it is not JSON"); }
  if (tree?.format !== "bunny-chat" || !Array.isArray(tree.turns)) throw new Error("it is not a conversation of this page");
  if (tree.version !== 1) throw new Error(`its version ${tree.version} is not known here`);
  const known = new Set(), turns = tree.turns.map((turn) => checked(turn, known));
  const talk = { ...fresh(), title: words(tree.title, "title").slice(0, 200), turns };
  talk.head = known.has(tree.head) ? tree.head : turns.at(-1)?.id ?? null;
  return talk;
}

export function exported(talk) {
  const { version, title, turns, head } = talk;
  return JSON.stringify({ format: "bunny-chat", version, title, head, turns }, null, 1);
}

function checked(turn, known) {
  const id = words(turn?.id, "id"), parent = turn.parent ?? null;
  if (!id || known.has(id) || (parent !== null && !known.has(parent))) throw new Error("its turns do not hang together");
  known.add(id);
  const pictures = many(turn.pictures, "pictures").map(({ name, url, width, height }) => {
    if (!PICTURE.test(url)) throw new Error("a picture in it is not one");
    return { name: words(name, "name"), url, width: Number(width) || 0, height: Number(height) || 0 };
  });
  const answers = many(turn.answers, "answers").map((answer) => ({
    model: words(answer.model, "model"), text: words(answer.text, "text"),
    state: STATES.includes(answer.state) && answer.state !== "running" ? answer.state : "cut",
    settings: settings(answer.settings),
    ...(answer.error && { error: words(answer.error, "error"), fix: words(answer.fix ?? "", "fix") }),
    ...(answer.figures && { figures: numbers(answer.figures) }),
  }));
  return { id, parent, text: words(turn.text, "text"), pictures, answers };
}

function words(value, what) {
  if (typeof value !== "string") throw new Error(`its ${what} is not a text`);
  return value;
}

function many(value, what) {
  if (!Array.isArray(value) || value.some((one) => typeof one !== "object" || one === null)) throw new Error(`its ${what} are no list`);
  return value;
}

const numbers = (tree) => Object.fromEntries(Object.entries(tree).filter(([, value]) => value === null || typeof value === "number" || typeof value === "boolean"));

function settings(tree = {}) {
  const { system = "", stop = [], ...rest } = tree ?? {};
  return { ...numbers(rest), system: words(system, "system"), stop: many(stop.map?.((one) => ({ one })) ?? [], "stop").map(({ one }) => words(one, "stop")) };
}
