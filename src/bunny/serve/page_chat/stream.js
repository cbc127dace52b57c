// One answer from the server, piece by piece, and what went wrong in words that say what to do.

export class Failure extends Error {
  constructor(what, { fix = "", kind = "", wait = 0 } = {}) {
    super(what);
    Object.assign(this, { fix, kind, wait });
  }
}

const GONE = () => new Failure("The server cannot be reached.", { fix: "Check that it is running and that this machine is connected; then try again.", kind: "offline" });

// Yields { text } for every piece, at last { reason, usage }. Throws Failure; an abort comes through as it is.
export async function* stream(request, key, signal) {
  const headers = { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
  let answer;
  try {
    answer = await fetch("v1/chat/completions", { method: "POST", headers, body: JSON.stringify(request), signal });
  } catch (error) {
    throw signal.aborted ? error : GONE();
  }
  if (!answer.ok) throw await refusal(answer);
  let reason = null, usage = null, whole = false;
  for await (const data of events(answer.body, signal)) {
    if (data === "[DONE]") { whole = true; break; }
    const chunk = parsed(data);
    if (chunk.error) throw new Failure(sentence(chunk.error.message ?? "The server failed."), { fix: "Try again; the server's log says more.", kind: "cut" });
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    reason = choice?.finish_reason ?? reason;
    usage = chunk.usage ?? usage;
  }
  if (!whole && reason === null) throw new Failure("The connection ended in the middle of the answer.", { fix: "What came is kept. Try again for a whole one.", kind: "cut" });
  yield { reason, usage };
}

// The `data` of each server-sent event.
async function* events(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "", data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => { throw signal.aborted ? error : new Failure("The connection broke in the middle of the answer.", { fix: "What came is kept. Try again for a whole one.", kind: "cut" }); });
      if (done) return;
      const lines = (waiting + value).split(/\r\n|\n|\r/);
      waiting = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line === "" && data.length) { yield data.join("\n"); data = []; }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // already closed, or broken: there is nothing left to end
  }
}

function parsed(data) {
  try { return JSON.parse(data); } catch { throw new Failure("The server sent something that is no answer.", { fix: "Try again; the server's log says more.", kind: "cut" }); }
}

// What a refused request means to a person.
async function refusal(answer) {
  const said = sentence((await answer.json().catch(() => ({}))).error?.message ?? "");
  const wait = Math.min(Math.ceil(Number(answer.headers.get("retry-after"))) || 0, 600);
  const words = {
    401: ["The server wants an API key, or does not know this one.", "Give the key above your question and try again.", "key"],
    403: [said || "The server refuses this page.", "Open the page at the address that the server printed.", ""],
    404: [said || "The server does not have this model.", "Choose another model above.", ""],
    408: ["The server waited too long for the question.", "Try again; with smaller pictures over a slow line.", ""],
    413: [said || "The question is too large for the server.", "Take pictures away or use smaller ones, or begin a new conversation.", ""],
    429: ["The server is busy.", wait ? `It takes questions again in about ${wait} s.` : "Try again in a moment.", "busy"],
    503: [said || "The server is not ready.", "It may be starting or ending. Try again in a moment.", "busy"],
    504: [said || "The answer took too long.", "Ask for a shorter one (Settings), or try again when the server is less busy.", ""],
  }[answer.status];
  const [what, fix, kind] = words ?? (answer.status >= 500
    ? [said || "The server failed.", "Try again; the server's log says more.", ""]
    : [said || `The server refused the question (${answer.status}).`, "Change the question or the settings.", ""]);
  return new Failure(what, { fix, kind, wait });
}

function sentence(text) {
  const clean = String(text).trim();
  if (!clean) return "";
  return clean[0].toUpperCase() + clean.slice(1) + (/[.!?…]$/.test(clean) ? "" : ".");
}
