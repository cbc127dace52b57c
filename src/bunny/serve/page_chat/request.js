// What is sent for an answer, and the same as a command for curl and as Python with the `openai` package.
import { messages } from "./conversation.js";

export const DEFAULTS = { system: "", temperature: 0.2, top_p: 0.7, max_tokens: 512, seed: null, stop: [] };

export function body(talk, turn, { model, settings }) {
  const { system, temperature, top_p, max_tokens, seed, stop } = { ...DEFAULTS, ...settings };
  return {
    model, messages: messages(talk, turn, model, system), max_tokens, temperature,
    ...(temperature > 0 && { top_p }), ...(seed !== null && { seed }), ...(stop.length && { stop }),
    stream: true, stream_options: { include_usage: true },
  };
}

const address = () => new URL("v1", document.baseURI).href;

export function asCurl(request, keyNeeded) {
  const key = keyNeeded ? ` \\\n  -H "Authorization: Bearer $BUNNY_API_KEY"` : "";
  const text = JSON.stringify(request, null, 2);
  return `curl --no-buffer ${address()}/chat/completions \\\n  -H "Content-Type: application/json"${key} \\\n  --data-binary @- <<'JSON'\n${text}\nJSON\n`;
}

export function asPython(request, keyNeeded) {
  const given = Object.entries(request).map(([name, value]) => `    ${name}=${literal(value, "    ")},\n`).join("");
  const key = keyNeeded ? `os.environ["BUNNY_API_KEY"]` : `"none"`;
  return `${keyNeeded ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url="${address()}", api_key=${key})
stream = client.chat.completions.create(
${given})
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
`;
}

// A JSON value as Python writes it; the strings of JSON are strings of Python too.
function literal(value, indent) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const deeper = `${indent}    `, [open, close] = Array.isArray(value) ? "[]" : "{}";
  const parts = Array.isArray(value)
    ? value.map((one) => literal(one, deeper))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, deeper)}`);
  const short = `${open}${parts.join(", ")}${close}`;
  if (short.length < 80 && !short.includes("\n")) return short;
  return `${open}\n${parts.map((part) => `${deeper}${part},\n`).join("")}${indent}${close}`;
}

// For reading: pictures are thousands of letters.
export const abridged = (code) => code.replace(/(;base64,.{24})[A-Za-z0-9+/=]{40,}/g, "$1…");
