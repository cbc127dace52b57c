"""Token ids of an answer become text, piece by piece; together the pieces are the text of the whole.

In: one id after the other. Out: text that can no longer change: no half character, nothing that may be the beginning
of a stop word, no stop word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNREADABLE = "�"
"""What a decoder writes for bytes that are no character, or not yet."""


class Spoken:
    """The text of one answer as it grows.

    stops: words that end it and are no part of it. gap: what the template writes before an answer: it is left out.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = (), gap: str = "") -> None:
        self.tokenizer, self.stops, self.gap = tokenizer, [stop for stop in stops if stop], gap
        self.stopped = False
        self._ids: list[int] = []
        self._seen, self._read = 0, 0  # ids before `_seen` play no part any longer; those before `_read` are written
        self._held = ""

    def add(self, id: int) -> str:
        """The text that is certain now."""
        self._ids.append(id)
        before, now = self._text(self._seen, self._read), self._text(self._seen, len(self._ids))
        if len(now) <= len(before) or now.endswith(UNREADABLE):
            return ""
        self._seen, self._read = self._read, len(self._ids)
        return self._certain(now[len(before) :])

    def end(self) -> str:
        """The rest: nothing follows."""
        before, now = self._text(self._seen, self._read), self._text(self._seen, len(self._ids))
        self._seen = self._read = len(self._ids)
        text = self._certain(now[len(before) :]) + ("" if self.stopped else self._held)
        self._held = ""
        return text

    def _text(self, start: int, end: int) -> str:
        return str(
            self.tokenizer.decode(self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def _certain(self, new: str) -> str:
        text = self._held + new
        if self.gap:
            if len(text) < len(self.gap) and self.gap.startswith(text):
                self._held = text
                return ""
            text, self.gap = text.removeprefix(self.gap), ""
        found = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        hold = max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of a text may be the beginning of a stop word."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
