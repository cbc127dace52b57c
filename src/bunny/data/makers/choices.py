"""Multiple choice: which of these things is in the picture?

In: pairs whose words are known. Out: single-turn conversations `{id}/choice1`, …. Letters are right equally often
(± 1), and a word stands among the wrong options about as often, in proportion, as it is the right one, so that neither
letter nor word tells the answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from bunny.core.types import Sample
from bunny.data.makers._prompts import OPTION_LETTER, ask
from bunny.data.makers._words import Named, WordMaker

LETTERS = "ABCDEFGHIJ"


class Choices(WordMaker):
    """`{use: choices, words: words.yaml, options: 4}`"""

    per_picture: int = Field(1, gt=0, description="questions, each about another word of the picture")
    options: int = Field(4, ge=2, le=len(LETTERS))
    question: str = "Which of these is in the picture?"
    answer: Literal["letter", "word"] = "letter"
    suffix: str = OPTION_LETTER

    def make(self, samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
        """Questions in the order of the samples. Raises UserError if no words are known."""
        named = self.name_all(samples)
        asked = [
            (at, number, word)
            for at, words in enumerate(named.words)
            for number, word in enumerate(
                rng.permutation(list(dict.fromkeys(words)))[: self.per_picture].tolist(), start=1
            )
        ]
        wrong = self._wrong_options(named, asked, rng)
        kept = [(row, options) for row, options in zip(asked, wrong, strict=True) if options]
        places = rng.permutation(np.arange(len(kept)) % self.options)  # where the right option stands
        for ((at, number, word), options), place in zip(kept, places.tolist(), strict=True):
            shown = [*options[:place], word, *options[place:]]
            lines = [self.question, *(f"{LETTERS[row]}. {option}" for row, option in enumerate(shown))]
            answer = LETTERS[place] if self.answer == "letter" else word
            sample = named.samples[at]
            yield ask(sample, f"{sample.id}/choice{number}", "\n".join(lines) + self.suffix, answer, "choices")

    def _wrong_options(
        self, named: Named, asked: list[tuple[int, int, str]], rng: np.random.Generator
    ) -> list[list[str]]:
        """Wrong options for each question, drawn from a bag with `options - 1` slips for each time a word is right.

        An empty list where the picture leaves too few fair words.
        """
        slips = [word for _, _, word in asked for _ in range(self.options - 1)]
        bag = deque(slips[turn] for turn in rng.permutation(len(slips)))
        everything = sorted(set(slips))
        drawn: list[list[str]] = [[] for _ in asked]
        for row in rng.permutation(len(asked)).tolist():
            options = drawn[row]
            at = asked[row][0]
            _draw(bag, options, self.options - 1, named, at)
            if len(options) < self.options - 1:  # the bag runs dry for the last few
                _draw(deque(rng.permutation(everything).tolist()), options, self.options - 1, named, at)
            if len(options) < self.options - 1:
                options.clear()
        return drawn


def _draw(bag: deque[str], options: list[str], count: int, named: Named, at: int) -> None:
    """Move fair words from the bag to the options until there are `count`; the others go back in their order."""
    back: list[str] = []
    while bag and len(options) < count:
        word = bag.popleft()
        if word not in options and named.fair(word, at):
            options.append(word)
        else:
            back.append(word)
    bag.extendleft(reversed(back))


USE = Choices
