"""Plain limits on captions and picture sizes; a reason names the limit that was broken."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from pydantic import Field, field_validator

from bunny.core.types import BoolArray, Decision, Pool
from bunny.curate.characters import Counted, count, repeated_share
from bunny.curate.step import OrderedStep, column, decision, numbers
from bunny.curate.texts import blocks, labels


class Rules(OrderedStep):
    """Drops a row for the first rule it breaks. A limit left out is not checked.

    DataComp's "basic filtering" (Gadre et al. 2023, arXiv:2304.14108) is {min_words: 3, min_characters: 6,
    min_side: 200, max_aspect: 3}, and English: {use: language, languages: [en]}.
    """

    min_words: int = Field(0, ge=0, description="words in the caption, by spaces")
    max_words: int | None = Field(None, gt=0)
    min_letters: int = Field(0, ge=0, description="letters (of any script) in the caption")
    min_characters: int = Field(0, ge=0)
    max_characters: int | None = Field(None, gt=0)
    min_letter_share: float = Field(0.0, ge=0, le=1, description="letters among the caption's characters but spaces")
    max_digit_share: float = Field(1.0, ge=0, le=1, description="digits among them")
    max_mark_share: float = Field(1.0, ge=0, le=1, description="punctuation and symbols among them")
    max_repeated_words: float = Field(1.0, ge=0, le=1, description="share of words that came before in the caption")
    max_repeated_pairs: float = Field(1.0, ge=0, le=1, description="share of pairs of words that did")
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
        for start, some in blocks(column(pool, "caption", "rules")):
            block = reasons[start : start + len(some)]  # a view
            for broken, reason in self._caption_rules(some, count(some)):
                block[broken & (block == "")] = reason
        for broken, reason in self._rules_of_the_pool(pool):
            reasons[broken & (reasons == "")] = reason
        return decision(reasons)

    def _caption_rules(self, texts: list[str], has: Counted) -> Iterator[tuple[BoolArray, str]]:
        yield has.words < self.min_words, f"caption of fewer than {self.min_words} words"
        yield has.letters < self.min_letters, f"caption of fewer than {self.min_letters} letters"
        yield has.characters < self.min_characters, f"caption of fewer than {self.min_characters} characters"
        if self.max_words is not None:
            yield has.words > self.max_words, f"caption of more than {self.max_words} words"
        if self.max_characters is not None:
            yield has.characters > self.max_characters, f"caption of more than {self.max_characters} characters"
        filled = np.maximum(1, has.filled)
        least = self.min_letter_share
        yield has.letters / filled < least, f"caption with less than {least:.0%} letters"
        for kind, most, what in (
            (has.digits, self.max_digit_share, "digits"),
            (has.marks, self.max_mark_share, "punctuation and symbols"),
        ):
            yield kind / filled > most, f"caption with more than {most:.0%} {what}"
        for size, limit, what in ((1, self.max_repeated_words, "words"), (2, self.max_repeated_pairs, "word pairs")):
            if limit < 1:
                share = np.array([repeated_share(text, size) for text in texts], dtype=float)
                yield share > limit, f"caption with more than {limit:.0%} repeated {what}"
        for pattern in self.junk:
            found = re.compile(pattern, re.IGNORECASE).search
            yield np.array([found(text) is not None for text in texts], dtype=bool), f"caption matches /{pattern}/"

    def _rules_of_the_pool(self, pool: Pool) -> Iterator[tuple[BoolArray, str]]:
        if self.max_repeats is not None:
            label = labels(column(pool, "caption", "rules"), lambda text: text.casefold().strip())
            repeats = np.bincount(label)[label]
            yield repeats > self.max_repeats, f"caption shared by more than {self.max_repeats} pictures"
        if self.min_side or self.max_aspect is not None:
            width, height = numbers(pool, "width", "rules"), numbers(pool, "height", "rules")
            short = np.where((width > 0) & (height > 0), np.minimum(width, height), np.nan)  # unknown: not checked
            long = np.maximum(width, height)
            yield short < self.min_side, f"shorter side below {self.min_side} pixels"
            if self.max_aspect is not None:
                yield long > self.max_aspect * short, f"longer side above {self.max_aspect:g} times the shorter"


USE = Rules
