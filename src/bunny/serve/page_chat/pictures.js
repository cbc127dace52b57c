// Pictures from a drop, the clipboard or a file picker: read, checked that they are pictures, made smaller only where
// the server would refuse them, which is said.
import { count } from "./elements.js";

const SENT = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];

// limits: { pixels, bytes } of one picture, null for none. Gives { picture, note }; throws an Error in words.
export async function read(file, limits) {
  let seen;
  try {
    seen = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "The picture"}: this browser cannot read it as a picture. Use PNG, JPEG or WebP.`);
  }
  const { width, height } = seen, name = file.name || "pasted picture";
  const scale = Math.min(1, Math.sqrt((limits.pixels ?? Infinity) / (width * height)));
  if (scale === 1 && SENT.includes(file.type) && file.size <= (limits.bytes ?? Infinity)) {
    seen.close();
    return { picture: { name, url: await dataUrl(file), width, height }, note: "" };
  }
  const made = await smaller(seen, scale, limits.bytes ?? Infinity, file.type === "image/jpeg");
  seen.close();
  const note = made.width < width ? `${name}: made smaller, ${width}×${height} → ${made.width}×${made.height}: the server takes no larger ones.`
    : `${name}: written anew as ${made.type}: ${SENT.includes(file.type) ? "the server takes no larger files" : "not every server reads its format"}.`;
  return { picture: { name, url: made.url, width: made.width, height: made.height }, note };
}

// Halves the pixels until the file is small enough.
async function smaller(seen, scale, bytes, photo) {
  for (let factor = scale; ; factor *= Math.SQRT1_2) {
    const width = Math.max(1, Math.floor(seen.width * factor)), height = Math.max(1, Math.floor(seen.height * factor));
    const canvas = new OffscreenCanvas(width, height), pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    if (photo) { pen.fillStyle = "#fff"; pen.fillRect(0, 0, width, height); } // JPEG has no transparency
    pen.drawImage(seen, 0, 0, width, height);
    const file = await canvas.convertToBlob({ type: photo ? "image/jpeg" : "image/png", quality: 0.92 });
    if (file.size <= bytes || width * height <= 4096) return { url: await dataUrl(file), width, height, type: photo ? "JPEG" : "PNG" };
    photo ||= factor < scale / 2; // a drawing that stays large is a photo
  }
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name || "The picture"}: it can no longer be read. Choose it again.`));
    reader.readAsDataURL(file);
  });
}

export const filesOf = (transfer) => [...(transfer?.files ?? [])];

export const tooMany = (most) => `The server takes ${count(most, "picture")} in a question at most.`;
