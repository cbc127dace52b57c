"""Where one thing is, seen from another: left, right, above or below.

In: a Parquet file of named pictures. Out: sheets with two pictures somewhere on a grid of 3 × 3, in one line or in one
column. Every set asks the same question of four sheets, one for each answer: whoever does not look is right once.
"""

from __future__ import annotations

from pathlib import Path

from bunny.core.types import Question
from bunny.evaluate.made_up import named_pictures
from bunny.evaluate.named import Thing, together
from bunny.evaluate.sheets import Composed, Sheet

GRID = 3
ANSWERS = {
    "left": ("left", "left of", "on the left", "左", "左边", "左侧"),
    "right": ("right", "right of", "on the right", "右", "右边", "右侧"),
    "above": ("above", "top", "up", "over", "上", "上面", "上方"),
    "below": ("below", "bottom", "down", "under", "beneath", "下", "下面", "下方"),
}
FORMS = {form: answer for answer, forms in ANSWERS.items() for form in forms}


class Position(Composed):
    """Four questions a set."""

    name: str = "position"

    def plan(self) -> list[tuple[Sheet, Question]]:
        asked = []
        rng = self.rng("sheets")
        for one, other in together(self.things(), 2, self.sets):
            for answer in ANSWERS:
                low, high = sorted(rng.permutation(GRID)[:2].tolist())
                line = int(rng.integers(GRID))
                near, far = (low, high) if answer in ("left", "above") else (high, low)
                places = ((near, line), (far, line)) if answer in ("left", "right") else ((line, near), (line, far))
                sheet = Sheet(GRID, GRID, ((one.row, *places[0]), (other.row, *places[1])))
                asked.append((sheet, self._question(one, other, answer)))
        return asked

    def _question(self, one: Thing, other: Thing, answer: str) -> Question:
        if self.language == "zh":
            this, that = self.called(one.word), self.called(other.word)
            text = f"{this}在{that}的左边、右边、上面还是下面？请只回答左边、右边、上面或下面。"
        else:
            start = f"Is the {one.word} left of, right of, above or below the {other.word}?"
            text = f"{start} Answer with one word: left, right, above or below."
        group = f"{one.id}:{other.id}"
        meta = self.meta(answer, one.word, other.word, forms=FORMS)
        return Question(f"{group}:{answer}", text, (), (answer,), group, meta)

    @classmethod
    def example(cls, folder: Path) -> Position:
        """Made-up pictures, for the contract suite."""
        return cls(path=named_pictures(folder), sets=3, cache=folder / "sheets")


USE = Position
