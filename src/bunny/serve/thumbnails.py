"""Pictures in, small encoded ones out, the latest of them kept in memory up to a number of bytes."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from bunny.core.errors import UserError

MOST_BYTES = 64 << 20


class Thumbnails:
    """Encoded pictures by (row, side). open_row: (row, side) -> its picture, of at least that side if it has as many
    pixels; None if it has none."""

    def __init__(self, open_row: Callable[[int, int], Image.Image | None], most_bytes: int = MOST_BYTES) -> None:
        self.open_row, self.most_bytes = open_row, most_bytes
        self.bytes = 0
        self._held: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, row: int, side: int) -> bytes | None:
        """WEBP of at most `side` x `side` pixels; None if there is no picture or it cannot be read any more."""
        with self._lock:
            if (row, side) in self._held:
                self._held.move_to_end((row, side))
                return self._held[row, side]
        data = self._make(row, side)
        if data is not None:
            with self._lock:
                self._keep((row, side), data)
        return data

    def _make(self, row: int, side: int) -> bytes | None:
        try:
            image = self.open_row(row, side)
        except (UserError, OSError):
            return None
        if image is None:
            return None
        image = image.convert("RGB")
        image.thumbnail((side, side), reducing_gap=2.0)
        data = io.BytesIO()
        image.save(data, "WEBP", quality=80, method=2)
        return data.getvalue()

    def _keep(self, key: tuple[int, int], data: bytes) -> None:
        self.bytes += len(data) - len(self._held.pop(key, b""))
        self._held[key] = data
        while self.bytes > self.most_bytes and len(self._held) > 1:
            self.bytes -= len(self._held.popitem(last=False)[1])
