"""Questions about words alone, without a picture: which thing is a kind of which.

In: the words file. Out: conversations of text, `words/q1`, …: every kind is asked as often with the answer yes as with
no. They keep a model able to answer where there is nothing to see; they teach nothing about pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.types import Sample, Turn
from bunny.data.makers._prompts import article
from bunny.data.makers._words import WordMaker


class WordQuestions(WordMaker):
    """`{use: word_questions, words: words.yaml}`; the pairs are not looked at."""

    questions: tuple[str, ...] = Field(
        (
            "Is {a} {word} a kind of {kind}?",
            "Does the word {word} name a kind of {kind}?",
            "Would you file {word} under {kind}?",
            "Is every {word} also {b} {kind}?",
        ),
        description="ways to ask; {a}, {b}: the articles",
    )
    yes: str = "yes"
    no: str = "no"

    def make(self, samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
        """All questions in a random order. Raises UserError for a words file in which no word implies another."""
        asked = [
            (question, word, kind, answer)
            for kind, (some, others) in sorted(self._kinds().items())
            for word, answer in [*((word, self.yes) for word in some), *((word, self.no) for word in others)]
            for question in self.questions
        ]
        if not asked:
            raise UserError("word_questions: no word implies another", fix="set `words` to a words file with `implies`")
        for number, at in enumerate(rng.permutation(len(asked)), start=1):
            question, word, kind, answer = asked[at]
            text = question.format(a=article(word), b=article(kind), word=word, kind=kind)
            yield Sample(f"words/q{number}", (), (Turn("user", text), Turn("assistant", answer)), "word_questions")

    def _kinds(self) -> dict[str, tuple[list[str], list[str]]]:
        """Broader word -> words that are of the kind, and as many that are surely not."""
        rules = self.rules()
        if rules is None:
            return {}
        found: dict[str, tuple[list[str], list[str]]] = {}
        for kind in {broader for rule in rules.words.values() for broader in rule.implies}:
            some = [word for word, rule in rules.words.items() if kind in rule.implies]
            others = [word for word in rules.words if word != kind and rules.may_ask_no(kind, [word])]
            if count := min(len(some), len(others)):
                found[kind] = some[:count], others[:: len(others) // count][:count]
        return found


USE = WordQuestions
