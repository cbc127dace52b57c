"""Naming: "What is this?" with one word for an answer.

In: pairs whose words are known. Out: one conversation `{id}/name` for each picture with few enough words that the first
is a fair answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from bunny.core.types import Sample
from bunny.data.makers._prompts import ONE_WORD, ask
from bunny.data.makers._words import WordMaker


class ShortNames(WordMaker):
    """`{use: short_names, words: words.yaml}`"""

    most_words: int = Field(1, gt=0, description="pictures with more words are left out; broader words do not count")
    questions: tuple[str, ...] = ("What is this?", "What is in the picture?", "What does the picture show?")
    suffix: str = ONE_WORD

    def make(self, samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
        """Names in the order of the samples. Raises UserError if no words are known."""
        named = self.name_all(samples)
        drawn = rng.integers(len(self.questions), size=len(named.samples))
        for sample, words, wording in zip(named.samples, named.words, drawn.tolist(), strict=True):
            rules = named.rules.words if named.rules else {}
            broad = {broader for word in words if word in rules for broader in rules[word].implies}
            names = [word for word in words if word not in broad]
            if len(names) <= self.most_words:
                question = self.questions[wording] + self.suffix
                yield ask(sample, f"{sample.id}/name", question, names[0], "short_names")


USE = ShortNames
