"""One request under way: what was asked, how far it is, what was said.

In: a `ChatRequest` as ids. Out: its events, in order.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers.convert_slow_tokenizer import bytes_to_unicode

from bunny.core.chat import ChatEvent, ChatRequest, Ended, Finished, Piece, TokenChance
from bunny.infer.kept import Said
from bunny.infer.sampling import Chooser, Drawn
from bunny.infer.spoken import UNREADABLE, Spoken

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A sentencepiece token that stands for one byte."""

BYTE_LEVEL = {letter: byte for byte, letter in bytes_to_unicode().items()}
"""The letters by which byte-level vocabularies write bytes."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture in a prompt. start: its first token. key: by which its tokens are found again."""

    start: int
    key: Hashable
    image: Any


@dataclass(eq=False)
class Row:
    """ids: the prompt, then the answer so far. most: tokens that the answer may have. alone: it may not be computed
    together with others. read: tokens whose keys and values are there. slot: -1: none yet. memory: what the language
    model remembers of a row that is computed alone. features: of its pictures, for as long as its prompt is read.
    cancelled: set by any thread.
    """

    request: ChatRequest
    listen: Callable[[ChatEvent], None]
    ids: list[int]
    shown: tuple[Shown, ...]
    most: int
    chooser: Chooser
    spoken: Spoken
    ends: frozenset[int]
    alone: bool = False
    submitted: float = field(default_factory=time.monotonic)
    slot: int = -1
    opened: bool = False
    read: int = 0
    cached: int = 0
    memory: Any = None
    features: dict[Hashable, Any] = field(default_factory=dict)
    cancelled: bool = False
    _waiting: list[tuple[TokenChance, tuple[TokenChance, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.ids)
        limit = self.request.timeout_seconds
        self.deadline = None if limit is None else self.submitted + limit
        self.said = Said(np.asarray(self.ids, dtype=np.int64), tuple((one.start, one.key) for one in self.shown))

    @property
    def speaks(self) -> bool:
        """Whether its prompt is read."""
        return self.read >= self.prompt_tokens

    @property
    def given(self) -> int:
        """Tokens of the answer so far."""
        return len(self.ids) - self.prompt_tokens

    def whole(self) -> Said:
        """All tokens whose keys and values are there."""
        return Said(np.asarray(self.ids[: self.read], dtype=np.int64), self.said.pictures)

    def hear(self, drawn: Drawn) -> Ended | None:
        """Take a token and say what it says; the reason if the answer ends with it."""
        self.ids.append(drawn.id)
        self.chooser.hear(drawn.id)
        if drawn.id in self.ends:
            self.tell(self.spoken.end())
            return "stop"
        if self.chooser.logprobs is not None:
            self._waiting.append(self._chance(drawn))
        self.tell(self.spoken.add(drawn.id))
        if self.spoken.stopped:
            return "stop"
        if self.given >= self.most:
            self.tell(self.spoken.end())
            return "stop" if self.spoken.stopped else "length"
        return None

    def tell(self, text: str) -> None:
        """Send a piece if there is text; the chances of its tokens go with it."""
        if text:
            chances, self._waiting = tuple(self._waiting), []
            self.listen(Piece(text, chances))

    def finish(self, reason: Ended, error: str = "") -> None:
        """Send the end."""
        if self._waiting:  # tokens without text
            self.listen(Piece("", tuple(self._waiting)))
            self._waiting = []
        self.listen(Finished(reason, self.prompt_tokens, self.given, self.cached, error))

    def _chance(self, drawn: Drawn) -> tuple[TokenChance, tuple[TokenChance, ...]]:
        others = tuple(self._token(id, logprob) for id, logprob in drawn.others)
        return self._token(drawn.id, drawn.logprob), others

    def _token(self, id: int, logprob: float) -> TokenChance:
        text, raw = token_text(self.spoken.tokenizer, id)
        return TokenChance(text, raw, logprob)


def token_text(tokenizer: Any, id: int) -> tuple[str, bytes]:
    """(text of a token alone, its bytes); a token may be a part of a character."""
    text = str(tokenizer.decode([id], clean_up_tokenization_spaces=False))
    name = str(tokenizer.convert_ids_to_tokens(id) or "")
    if UNREADABLE not in text:
        return text, text.encode()
    if fallback := BYTE.fullmatch(name):
        return text, bytes([int(fallback[1], 16)])
    if all(letter in BYTE_LEVEL for letter in name):
        return text, bytes(BYTE_LEVEL[letter] for letter in name)
    return text, text.encode()
