"""Plain rules on captions and picture sizes; each names the limit it broke."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from pydantic import Field, field_validator

from bunny.core.types import BoolArray, Decision, Pool
from bunny.curate.step import OrderedStep, column, decision


class Rules(OrderedStep):
    """Drops a row for the first rule it breaks. A limit left out is not checked."""

    min_words: int = Field(0, ge=0, description="words in the caption, by spaces")
    max_words: int | None = Field(None, gt=0)
    min_letters: int = Field(0, ge=0, description="letters (of any script) in the caption")
    max_characters: int | None = Field(None, gt=0)
    junk: tuple[str, ...] = ()  # regular expressions, found anywhere in the caption, upper or lower case
    max_repeats: int | None = Field(None, gt=0, description="pictures that share one caption (case ignored)")
    min_side: int = Field(0, ge=0, description="pixels of the shorter side")
    max_aspect: float | None = Field(None, ge=1, description="longer side divided by shorter side")

    @field_validator("junk")
    @classmethod
    def _must_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"`{pattern}` is not a regular expression: {error}") from None
        return patterns

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        reasons = np.full(len(pool), "", dtype=object)
        for broken, reason in [*self._caption_rules(pool), *self._picture_rules(pool)]:
            reasons[broken & (reasons == "")] = reason
        return decision(reasons)

    def _caption_rules(self, pool: Pool) -> Iterator[tuple[BoolArray, str]]:
        captions = [str(text) for text in column(pool, "caption", "rules")]
        words = np.array([len(text.split()) for text in captions], dtype=int)
        letters = np.array([sum(map(str.isalpha, text)) for text in captions], dtype=int)
        characters = np.array([len(text) for text in captions], dtype=int)
        yield words < self.min_words, f"caption of fewer than {self.min_words} words"
        yield letters < self.min_letters, f"caption of fewer than {self.min_letters} letters"
        if self.max_words is not None:
            yield words > self.max_words, f"caption of more than {self.max_words} words"
        if self.max_characters is not None:
            yield characters > self.max_characters, f"caption of more than {self.max_characters} characters"
        if self.max_repeats is not None:
            plain = [text.casefold().strip() for text in captions]
            count = Counter(plain)
            repeats = np.array([count[text] for text in plain], dtype=int)
            yield repeats > self.max_repeats, f"caption shared by more than {self.max_repeats} pictures"
        for pattern in self.junk:
            found = re.compile(pattern, re.IGNORECASE).search
            yield np.array([found(text) is not None for text in captions], dtype=bool), f"caption matches /{pattern}/"

    def _picture_rules(self, pool: Pool) -> Iterator[tuple[BoolArray, str]]:
        if not self.min_side and self.max_aspect is None:
            return
        sides = np.sort(np.stack([column(pool, name, "rules") for name in ("width", "height")], axis=1), axis=1)
        yield sides[:, 0] < self.min_side, f"shorter side below {self.min_side} pixels"
        if self.max_aspect is not None:
            yield (
                sides[:, 1] > self.max_aspect * sides[:, 0],
                f"longer side above {self.max_aspect:g} times the shorter",
            )


USE = Rules
