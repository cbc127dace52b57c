"""LLaVA's JSON: conversations about pictures, as the original Bunny and most instruction sets ship them.

In: a JSON list, or one object a line, of `{id, image?, conversations: [{from: human | gpt, value}]}` and a folder of
pictures. Out: one conversation a row, a lone picture at the front of its turn. Rows whose pictures, marks or roles do
not fit are rejected with their line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from bunny.core.types import IMAGE_MARK, ImageRef, Role, Sample, Turn
from bunny.data.json_rows import json_rows
from bunny.data.sources._rows import BadRow, RowSource, checked, plain
from bunny.data.sources._seen import Seen

ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


class LlavaJson(RowSource):
    """`{use: llava_json, path: bunny_695k.json, images: pictures/}`"""

    images: str | None = None  # folder that picture paths start from; default: the JSON file's
    repeated_ids: Literal["number", "reject"] = "number"  # published sets reuse a picture's id for several rows

    def rows(self) -> Iterator[tuple[str, Any]]:
        for path in self.files([".json", ".jsonl"]):
            if not path.stat().st_size:
                yield str(path), BadRow("damaged_file", "it has no bytes")
            for line, row in json_rows(path):
                yield f"{path}:{line}", row

    def sample(self, where: str, raw: Any) -> Sample:
        if not isinstance(raw, dict):
            raise BadRow("malformed_row", "not a JSON object")
        id = str(raw["id"]) if raw.get("id") is not None else where
        try:
            turns = conversation(raw.get("conversations"), self.max_caption_chars)
            images = self._images(where, raw)
            turns = image_first(turns) if len(images) == 1 else turns
            _check_marks(turns, len(images))
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, id) from None
        known = ("id", "image", "images", "conversations", "source", "meta")
        meta = {key: plain(value) for key, value in raw.items() if key not in known}
        more = raw.get("meta")
        meta |= plain(more) if isinstance(more, dict) else {} if more is None else {"meta": plain(more)}
        source = self.name or raw.get("source") or Path(where).stem
        return Sample(id, images, turns, str(source), meta)

    def repeated(self, sample: Sample, places: Seen) -> Sample:
        if self.repeated_ids == "reject":
            return super().repeated(sample, places)
        number = 2
        while f"{sample.id}~{number}" in places:
            number += 1
        return Sample(f"{sample.id}~{number}", sample.images, sample.turns, sample.source, sample.meta)

    def _images(self, where: str, raw: Mapping[str, Any]) -> tuple[ImageRef, ...]:
        written = raw.get("image", raw.get("images"))
        names = [written] if isinstance(written, str) else written or []
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise BadRow("malformed_row", "`image` is neither a path nor a list of paths")
        root = self.located(self.images) if self.images else Path(where.rpartition(":")[0]).parent
        for name in names:
            if not (root / name).is_file():
                raise BadRow("missing_file", str(root / name))
        return tuple(ImageRef(str(root / name)) for name in names)


def image_first(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The turns of a sample with one picture, its mark at the front of the turn that has it.

    The marks of a turn become one before its text, with a line break between; other turns stay as they are. This is
    how the original Bunny reads every sample (bunny/util/data_utils.py, preprocess_multimodal), and what its models
    were trained on. It does so for several pictures too, which loses pictures: those keep their marks here.

    >>> image_first((Turn("user", "What is in <image>?"), Turn("assistant", "A cat.")))[0].text
    '<image>\\nWhat is in ?'
    """
    return tuple(Turn(turn.role, _front(turn.text)) if IMAGE_MARK in turn.text else turn for turn in turns)


def _front(text: str) -> str:
    return f"{IMAGE_MARK}\n{text.replace(IMAGE_MARK, '').strip()}".strip()


def conversation(raw: Any, limit: int) -> tuple[Turn, ...]:
    """The conversation: system?, then user and assistant in turn, the last word an answer. Raises BadRow.

    An answer before the first question is left out, as the original does.
    """
    if not isinstance(raw, list) or not raw:
        raise BadRow("malformed_row", "`conversations` is not a list of turns")
    turns = [_turn(number, item, limit) for number, item in enumerate(raw, start=1)]
    start = int(turns[0].role == "system")
    first = start + int(turns[start:] != [] and turns[start].role == "assistant")
    roles = [turn.role for turn in turns[first:]]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        detail = ", ".join(turn.role for turn in turns)
        raise BadRow("wrong_roles", f"user and assistant must take turns and end with an answer: {detail}")
    return (*turns[:start], *turns[first:])


def _turn(number: int, item: Any, limit: int) -> Turn:
    if not isinstance(item, dict) or not isinstance(item.get("value"), str):
        raise BadRow("malformed_row", f"turn {number} is no {{from, value}} object with text")
    role = ROLES.get(str(item.get("from")))
    if role is None:
        raise BadRow("wrong_roles", f"turn {number} is from {item.get('from')!r}; known: {', '.join(ROLES)}")
    text = checked(item["value"], limit)
    if role == "assistant" and not text.strip():
        raise BadRow("empty_answer", f"turn {number}")
    if role != "user" and IMAGE_MARK in text:
        raise BadRow("image_marks", f"turn {number}: {IMAGE_MARK} in a {role} turn")
    return Turn(role, text)


def _check_marks(turns: tuple[Turn, ...], images: int) -> None:
    marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
    if marks != images:
        raise BadRow("image_marks", f"{marks} {IMAGE_MARK} marks, {images} images: one mark a picture is needed")


USE = LlavaJson
