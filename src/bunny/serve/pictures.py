"""The picture that a message names, decoded: where it may come from, how large it may be, what it may be made of.

In: an `image_url`. Out: an upright RGB picture and the digest of its bytes. The header is read, and the memory that the
decoded picture takes is counted, before anything is decoded; decoding is done in a few threads.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from bunny.data.containers import ImageError
from bunny.data.images import decode, image_header
from bunny.serve.budget import Share
from bunny.serve.failures import ApiError
from bunny.serve.fetch import Fetcher
from bunny.serve.limits import Limits
from bunny.serve.media import MediaFolder

FORMATS: Mapping[str, bytes] = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8", "BMP": b"BM"}
"""What is decoded, and how it begins; WEBP too, and MPO, a JPEG of several pictures. No other decoder sees the bytes:
few have had as many eyes on them."""

Found = TypeVar("Found")

NAMES = "PNG, JPEG, WebP, GIF or BMP"


@dataclass(frozen=True, slots=True)
class Shown:
    """picture: PIL, RGB, upright. key: SHA-256 of its bytes."""

    picture: Any
    key: str


class Pictures:
    """fetcher: none: no picture is fetched. media: none: no file is read."""

    def __init__(self, limits: Limits, fetcher: Fetcher | None = None, media: MediaFolder | None = None) -> None:
        self.limits, self.fetcher, self.media = limits, fetcher, media
        self._decoders = anyio.CapacityLimiter(limits.decoders)

    async def open(self, url: str, share: Share, pixels_left: int) -> tuple[Shown, int]:
        """The picture and the pixels that it counts for. Raises ApiError 400, 429.

        share: holds the decoded picture. pixels_left: what it may have.
        """
        data = await self._bytes(url)
        pixels = await self._run(partial(_pixels, data, self.limits.picture_pixels))
        if pixels > pixels_left:
            message = f"the pictures have more than {self.limits.request_pixels / 1e6:g} million pixels together"
            raise ApiError(400, message, code="image_too_large")
        share.take(3 * pixels)
        return await self._run(partial(_decoded, data, self.limits.picture_pixels)), pixels

    async def _bytes(self, url: str) -> bytes:
        scheme = url[:8].partition(":")[0].lower()
        if scheme == "data":
            return await self._run(partial(_inline, url, self.limits.picture_bytes))
        if scheme in ("http", "https"):
            if self.fetcher is None:
                raise _refused("pictures are not fetched here: send them as data: addresses")
            return await self.fetcher.fetch(url)
        if self.media is None or (":" in url.partition("/")[0] and scheme != "file"):
            raise _refused("send the picture as a data: address")
        return await to_thread.run_sync(self.media.read, url, self.limits.picture_bytes)

    async def _run(self, work: Callable[[], Found]) -> Found:
        try:
            return await to_thread.run_sync(work, limiter=self._decoders)
        except ImageError as error:
            code = "image_too_large" if error.reason == "too_large" else "invalid_image"
            raise ApiError(400, str(error), code=code) from None


def _inline(url: str, most: int) -> bytes:
    """The bytes of a base64 `data:` address."""
    head, comma, text = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise _refused("a data: address begins like data:image/png;base64,")
    if len(text) > most // 3 * 4 + 1024:
        raise ApiError(400, f"the picture is larger than {most >> 20} MiB", code="image_too_large")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _refused("its base64 is damaged") from None


def _pixels(data: bytes, most: int) -> int:
    """How many pixels a picture will have at most, from its header. Raises ImageError for a format that is not read."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if not webp and not any(data.startswith(mark) for mark in FORMATS.values()):
        raise ImageError("not_a_picture", "picture", f"not {NAMES}" if data else "it is empty")
    kind, (width, height) = image_header(data)
    if kind not in (*FORMATS, "WEBP", "MPO"):
        raise ImageError("not_a_picture", "picture", f"not {NAMES}")
    return min(width * height, most)  # `decode` refuses what it cannot bring below


def _decoded(data: bytes, most: int) -> Shown:
    return Shown(decode(data, max_pixels=most), hashlib.sha256(data).hexdigest())


def _refused(why: str) -> ApiError:
    return ApiError(400, why, code="invalid_image_url")
