// Talks to the server on this machine: JSON in and out; a failed answer becomes an Error with the server's words.

export async function get(path, params = {}, signal = undefined) {
  const answer = await fetch(path + query(params), { signal });
  return unpack(answer);
}

export async function post(path, body) {
  const headers = { "content-type": "application/json" };
  return unpack(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

export async function bytes(path) {
  const answer = await fetch(path);
  if (!answer.ok) return unpack(answer);
  return answer.arrayBuffer();
}

// Empty conditions are left out of the address.
export function query(params) {
  const given = Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? "?" + new URLSearchParams(given) : "";
}

async function unpack(answer) {
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `the server said ${answer.status}`);
  return body;
}

export function notice(text) {
  const place = document.getElementById("notice");
  place.textContent = text;
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => (place.textContent = ""), 6000);
}
