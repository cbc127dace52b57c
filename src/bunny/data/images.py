"""Pictures as every other part sees them: upright 8-bit RGB, opened safely.

In: an `ImageRef` (or encoded bytes). Out: a PIL image, its size, or an `ImageError` with a reason to count by.
The header is read first and a pixel cap applied, so that a small file cannot fill the memory (a 160 KB PNG can decode
to 817 MB). Transparent pictures are laid on white; the original Bunny's `convert("RGB")` shows whatever colour
lies hidden under the transparent parts (usually black), which spoils clip-art and logos.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bunny.core.types import ImageRef
from bunny.data.containers import ImageError, image_bytes

MAX_PIXELS = 64_000_000  # 8000 x 8000; at most 256 MB while decoding
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")  # no EPS: it runs programs
WHITE = (255, 255, 255)

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_ORIENTATION = 0x0112  # EXIF tag


def open_image(ref: ImageRef, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None) -> Image.Image:
    """The picture, upright (EXIF), first frame, 8-bit RGB on white.

    max_pixels: refuse a header that promises more (a baseline JPEG may still come in at 1/2, 1/4 or 1/8 size).
    at_least: enough pixels for the shorter side; a larger JPEG is decoded at reduced size, several times faster, with
    slightly different pixels. Leave it out for training and evaluation.
    Raises ImageError: missing_file, empty_file, not_a_picture, damaged, too_large.
    """
    return decode(image_bytes(ref), where=str(ref), max_pixels=max_pixels, at_least=at_least)


def decode(
    data: bytes, *, where: str = "picture", max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Image.Image:
    """`open_image` for bytes at hand (uploads, tests)."""
    image = _identify(data, where)
    _reduce(image, max_pixels, at_least)
    _check_pixels(image, max_pixels, where)
    try:
        image.load()
        _turn_upright(image)
        return to_rgb(image)
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", where, str(error)) from None
    except _BROKEN as error:
        raise ImageError("damaged", where, f"cannot be decoded ({_line(error)})") from None


def image_size(ref: ImageRef) -> tuple[int, int]:
    """(width, height) in pixels of the upright picture, read from the header; nothing is decoded."""
    return image_header(image_bytes(ref), str(ref))[1]


def image_header(data: bytes, where: str = "picture") -> tuple[str, tuple[int, int]]:
    """Pillow's name of the format ("JPEG", "PNG", …), and (width, height) in pixels of the upright picture."""
    image = _identify(data, where)
    sideways = "exif" in image.info and _orientation(image) >= 5
    return str(image.format), (image.height, image.width) if sideways else image.size


def image_format(data: bytes, where: str = "picture") -> str:
    """Pillow's name of the format ("JPEG", "PNG", …), from the header."""
    return image_header(data, where)[0]


def sha256(ref: ImageRef) -> str:
    """Hex digest of the encoded bytes: equal only for byte-equal pictures. Raises ImageError."""
    return hashlib.sha256(image_bytes(ref)).hexdigest()


def checked_digest(ref: ImageRef, known_good: bool = False) -> bytes:
    """SHA-256 (32 bytes) of the encoded bytes of a picture that opens; a known good one is not decoded again.

    Raises ImageError, as `open_image`.
    """
    data = image_bytes(ref)
    if not known_good:
        decode(data, where=str(ref))
    return hashlib.sha256(data).digest()


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # AVIF is missing from older Pillows


def _identify(data: bytes, where: str) -> Image.Image:
    """The picture with its header read and no pixel decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:
        raise ImageError("not_a_picture", where, f"not a picture ({', '.join(_formats())} are read)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", where, _line(error)) from None
    except _BROKEN as error:
        raise ImageError("damaged", where, f"damaged header ({_line(error)})") from None


def _reduce(image: Image.Image, max_pixels: int, at_least: int | None) -> None:
    """Let the JPEG decoder shrink: to `at_least`, and baseline files to the cap (progressive ones need all memory)."""
    if image.format not in ("JPEG", "MPO"):
        return
    shrink = min(image.size) // at_least if at_least else 1
    if not image.info.get("progressive"):
        shrink = max(shrink, next((s for s in (1, 2, 4, 8) if image.width * image.height <= max_pixels * s * s), 1))
    if shrink > 1:
        image.draft(None, (image.width // shrink, image.height // shrink))


def _check_pixels(image: Image.Image, max_pixels: int, where: str) -> None:
    if image.width * image.height > max_pixels:
        detail = f"{image.width} x {image.height} pixels, the limit is {max_pixels / 1e6:g} million"
        raise ImageError("too_large", where, detail)


def _orientation(image: Image.Image) -> int:
    """1 to 8; a damaged EXIF block says nothing (1), the picture itself is good."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:
        return 1


def _turn_upright(image: Image.Image) -> None:
    if _orientation(image) != 1:
        ImageOps.exif_transpose(image, in_place=True)


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB, transparent parts on white, 16-bit and float grey stretched to 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey8(image).convert("RGB")
    if image.has_transparency_data:
        top = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", top.size, (*WHITE, 255)), top).convert("RGB")
    return image.convert("RGB")


def _grey8(image: Image.Image) -> Image.Image:
    """8-bit grey of a deep grey picture. 16-bit: scaled by 255/65535 (Pillow's own convert clips at 255).

    32-bit integers beyond 16 bits and floats beyond 0..255 are stretched from their least to their greatest value;
    floats within 0..1 count as fractions of white; NaN is black.
    """
    values = np.asarray(image)  # (H, W)
    if image.mode == "F":
        return Image.fromarray(_stretch(values, _float_range(values)))
    if values.min() >= 0 and values.max() <= 65535:
        table = ((np.arange(65536) + 128) // 257).astype(np.uint8)  # (65536,) rounds to nearest
        return Image.fromarray(table[values])
    return Image.fromarray(_stretch(values, (float(values.min()), float(values.max()))))


def _float_range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= 255:
        return 0.0, 1.0 if high <= 1 else 255.0
    return low, high


def _stretch(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """(H, W) uint8: the lower bound becomes 0, the upper 255."""
    low, high = bounds
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-12))
    pixels: np.ndarray = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255).round().astype(np.uint8)
    return pixels


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
