"""Texts of a sample that no file of the pool can hold: a sample in, a reason out.

Half of a surrogate pair has no UTF-8, a NUL character ends a text in C and in numpy, and megabytes in an id, a caption
or an address are files pasted by accident. What is wrong is found before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator

from bunny.core.types import Rejected, Sample

CAPTION_CHARACTERS = 1_000_000
ID_CHARACTERS = 4096


def unstorable(sample: Sample) -> Rejected | None:
    """Why the sample cannot be stored: `caption_too_long`, `text_too_long` or `not_unicode`; None if it can."""
    if len(sample.text) > CAPTION_CHARACTERS:
        return _rejected(
            sample, "caption_too_long", f"{len(sample.text)} characters, the limit is {CAPTION_CHARACTERS}"
        )
    for name, text in _texts(sample):
        limit = ID_CHARACTERS if name == "id" else CAPTION_CHARACTERS
        if len(text) > limit:
            return _rejected(sample, "text_too_long", f"{name}: {len(text)} characters, the limit is {limit}")
        if fault := _fault(text):
            return _rejected(sample, "not_unicode", f"{name}: {fault}")
    return None


def tellable(item: Rejected) -> Rejected:
    """The same, in words that can be written: what UTF-8 cannot hold is escaped, an endless id or place cut."""
    return Rejected(_told(item.id), _told(item.where), _told(item.reason), _told(item.detail))


def _texts(sample: Sample) -> Iterator[tuple[str, str]]:
    """(what it is, text) of all that is stored as text."""
    yield "id", sample.id
    yield "source", sample.source
    for turn in sample.turns:
        yield "caption" if turn.role == "assistant" else turn.role, turn.text
    for ref in sample.images:
        for part in (ref.path, ref.member, ref.column):
            yield "picture", part
    for key, value in sample.meta.items():
        yield "name of a column", str(key)
        if isinstance(value, str):
            yield str(key), value


def _fault(text: str) -> str:
    """What is wrong with a text; empty if nothing is."""
    if "\0" in text:
        return f"NUL at character {text.index(chr(0))}"
    if text.isascii():
        return ""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"half of a surrogate pair at character {error.start}"
    return ""


def _rejected(sample: Sample, reason: str, detail: str) -> Rejected:
    where = str(sample.images[0]) if sample.images else sample.source
    return tellable(Rejected(sample.id, where, reason, detail))


def _told(text: str) -> str:
    short = text if len(text) <= ID_CHARACTERS else f"{text[:100]}…"
    return short.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
