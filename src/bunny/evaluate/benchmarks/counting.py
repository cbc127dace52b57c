"""Counting from one to five: how many of six small pictures on a sheet show a thing.

In: a Parquet file of named pictures. Out: sheets of 3 × 2 pictures. Every set asks about one thing on five sheets with
one to five pictures of it, the others surely do not show it: whoever does not look is right in one of five cases.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from bunny.core.errors import UserError
from bunny.core.types import Question
from bunny.evaluate.made_up import named_pictures
from bunny.evaluate.named import Thing, article
from bunny.evaluate.sheets import Composed, Sheet

CELLS = [(column, line) for line in range(2) for column in range(3)]
MOST = 5
FORMS = {
    **{str(n): str(n) for n in range(7)},
    **{word: str(n) for n, word in enumerate(("zero", "one", "two", "three", "four", "five", "six"))},
    **{word: str(n) for n, word in enumerate("零一二三四五六")},
    "两": "2",
    "none": "0",
}


class Counting(Composed):
    """Five questions a set."""

    name: str = "counting"

    def plan(self) -> list[tuple[Sheet, Question]]:
        things, asked = self.things(), []
        shown: dict[str, list[Thing]] = defaultdict(list)
        for thing in things:
            shown[thing.word].append(thing)
        rng = self.rng("sheets")
        fit = [word for word, some in shown.items() if len(some) >= MOST and len(_without(things, word)) >= MOST]
        if not fit:
            raise UserError(f"{self.source}: no thing on {MOST} pictures", fix="give more pictures of one thing")
        for turn in range(self.sets):
            word = fit[turn % len(fit)]
            for count in range(1, MOST + 1):
                rows = [shown[word][at].row for at in rng.permutation(len(shown[word]))[:count]]
                others = _without(things, word)
                rows += [others[at].row for at in rng.permutation(len(others))[: len(CELLS) - count]]
                places = [CELLS[at] for at in rng.permutation(len(CELLS))]
                cells = tuple((row, *place) for row, place in zip(rows, places, strict=True))
                asked.append((Sheet(3, 2, cells), self._question(f"{word}:{turn}", word, count)))
        return asked

    def _question(self, group: str, word: str, count: int) -> Question:
        if self.language == "zh":
            text = f"有几张小图画的是{self.called(word)}？请只回答数字。"
        else:
            text = f"How many of the small pictures show {article(word)}? Answer with a number."
        meta = self.meta(f"count {count}", word, forms=FORMS)
        return Question(f"{group}:{count}", text, (), (str(count),), group, meta)

    @classmethod
    def example(cls, folder: Path) -> Counting:
        """Made-up pictures, for the contract suite."""
        return cls(path=named_pictures(folder), sets=3, cache=folder / "sheets")


def _without(things: list[Thing], word: str) -> list[Thing]:
    return [thing for thing in things if word in thing.absent]


USE = Counting
