"""Pairs or conversations that lie in tars and tables, as rows of a stage: what makers that read them share.

In: samples of a source. Out: a conversation for each: the one the row brings (`conversations`, as our writers and LLaVA
keep them), else an instruction and the caption.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any

from bunny.core.types import IMAGE_MARK, Sample
from bunny.data.makers._prompts import ask
from bunny.data.makers._stored import Stored
from bunny.data.makers.captions import INSTRUCTIONS
from bunny.data.sources._rows import BadRow
from bunny.data.sources.llava_json import conversation, image_first

CONVERSATIONS = "conversations"


class Captioned(Stored):
    """`plain` and `instructions` as of `{use: captions}`; an instruction is drawn by the sample's id."""

    plain: bool = False  # the user turn is the picture alone
    instructions: tuple[str, ...] = INSTRUCTIONS  # one is drawn for each pair

    def as_conversation(self, sample: Sample) -> Sample:
        """The sample with a user turn before its answer. Raises BadRow."""
        if written := sample.meta.get(CONVERSATIONS):
            return self._written(sample, written)
        if not sample.images:
            raise BadRow("no_question", "a text without picture and without `conversations`", sample.id)
        drawn = zlib.crc32(sample.id.encode("utf-8", "surrogatepass")) % max(1, len(self.instructions))
        question = "" if self.plain or not self.instructions else self.instructions[drawn]
        return ask(sample, sample.id, question, sample.text, sample.source)

    def _written(self, sample: Sample, written: Any) -> Sample:
        try:
            talk = json.loads(written) if isinstance(written, str) else written
            turns = conversation([_as_llava(turn) for turn in talk], 1 << 30)
        except (ValueError, TypeError) as error:
            raise BadRow("malformed_row", f"`{CONVERSATIONS}`: {error}", sample.id) from None
        except BadRow as bad:
            raise BadRow(bad.reason, bad.detail, sample.id) from None
        turns = image_first(turns) if len(sample.images) == 1 else turns
        marks = sum(turn.text.count(IMAGE_MARK) for turn in turns if turn.role == "user")
        if marks != len(sample.images):
            raise BadRow("image_marks", f"{marks} marks, {len(sample.images)} pictures", sample.id)
        return replace(sample, turns=turns)


def _as_llava(turn: Any) -> Any:
    """{role, text | content} as LLaVA's {from, value}; anything else as it is."""
    if not isinstance(turn, dict) or "from" in turn:
        return turn
    return {"from": turn.get("role"), "value": turn.get("text", turn.get("content"))}
