"""What a picture shows, of four things, asked once for every order of the choices.

In: a Parquet file of named pictures. Out: sets of four pictures of four things, none showing what another is called
after. All four are asked with the same four choices, so each choice is right once; every question comes in four passes
with the choices turned on. Headline: right in all passes; `vanilla`: in the first alone, where chance is one in four.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from bunny.core.types import Answer, EvalResult, ImageRef, Parsed, Question
from bunny.evaluate.made_up import named_pictures
from bunny.evaluate.named import NamedPictures, Thing, together
from bunny.evaluate.official.circular import with_intervals
from bunny.evaluate.parse import choice

ENDINGS = {"en": "Answer with the option's letter from the given choices directly.", "zh": "请直接回答选项字母。"}
STARTS = {"en": "What does the picture show?", "zh": "图中画的是什么？"}


class Choice(NamedPictures):
    """`options` × `options` questions a set."""

    name: str = "choice"
    options: int = Field(4, ge=2, le=8, description="choices of a question, and passes")

    def questions(self) -> Sequence[Question]:
        """The questions, pass by pass, picture by picture."""
        return [
            self._question(group, thing, turn)
            for group in together(self.things(), self.options, self.sets)
            for thing in group
            for turn in range(self.options)
        ]

    def parse(self, question: Question, answer: Answer) -> Parsed:
        """The letter."""
        return choice(answer.text, question.meta["letters"])

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        """Circular accuracy in per cent, by pictures; with `trained` for seen and unseen things."""
        return with_intervals(super().score(questions, parsed), questions)

    @classmethod
    def example(cls, folder: Path) -> Choice:
        """Made-up pictures, for the contract suite."""
        return cls(path=named_pictures(folder), sets=3, options=3)

    def _question(self, group: list[Thing], thing: Thing, turn: int) -> Question:
        letters = "ABCDEFGH"[: len(group)]
        turned = group[turn:] + group[:turn]
        lines = [f"{letter}. {self.called(one.word)}" for letter, one in zip(letters, turned, strict=True)]
        prompt = "\n".join([STARTS[self.language], *lines, ENDINGS[self.language]])
        kind = "things" if self.trained is None else "seen" if self.seen(thing.word) else "unseen"
        facts = {"letters": letters, "question": thing.id, "first": turn == 0, "l2": kind}
        meta = self.meta(kind, thing.word, **facts)
        gold = letters[turned.index(thing)]
        name = ":".join(one.id for one in group)
        image = ImageRef(str(self.source), str(thing.row))
        return Question(f"{thing.id}:{turn}", prompt, (image,), (gold,), name, meta)


USE = Choice
