"""Reading a word that is written over a picture of something else.

In: a Parquet file of named pictures. Out: one picture a question with a word in a white band at the top, in the middle
or at the bottom. Of two pictures each has what the other shows written over it, so that naming things does not help.
All questions are put in the same words. `anls`: one minus the normalised edit distance where that is at least one half
(Biten et al. 2019, arXiv:1907.00490).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bunny.core.errors import UserError
from bunny.core.types import Answer, EvalResult, Parsed, Question
from bunny.evaluate.made_up import named_pictures
from bunny.evaluate.named import chinese, together
from bunny.evaluate.parse import normalise, words
from bunny.evaluate.scoring import mean_score
from bunny.evaluate.sheets import Composed, Sheet, has_glyphs
from bunny.evaluate.stats import Clusters
from bunny.evaluate.text_metrics import anls

SIDE_OF_ONE = 256  # pixels
PLACES = {"top": 0.0, "middle": 0.5, "bottom": 1.0}


class Reading(Composed):
    """Two questions a set: each of two pictures with the other's word."""

    name: str = "reading"
    written: Literal["en", "zh"] = "en"  # what is drawn; Chinese needs a `font` that has it

    def plan(self) -> list[tuple[Sheet, Question]]:
        asked = []
        rng = self.rng("sheets")
        for pair in together(self.things(), 2, self.sets):
            group = ":".join(thing.id for thing in pair)
            for thing, other in (pair, pair[::-1]):
                place = list(PLACES)[int(rng.integers(len(PLACES)))]
                text = other.word if self.written == "en" else chinese().get(other.word, "")
                if not text or not has_glyphs(text, self.font):
                    raise UserError(
                        f"reading: `{text or other.word}` cannot be drawn in Chinese",
                        fix="give a `font` file with Chinese letters, or `written: en`",
                    )
                sheet = Sheet(1, 1, ((thing.row, 0, 0),), text, PLACES[place], SIDE_OF_ONE)
                prompt = (
                    "图中写的是什么词？请只回答这个词。"
                    if self.language == "zh"
                    else "Which word is written in the picture? Answer with that word alone."
                )
                meta = self.meta(place, other.word)
                asked.append((sheet, Question(f"{group}:{thing.id}", prompt, (), (text,), group, meta)))
        return asked

    def parse(self, question: Question, answer: Answer) -> Parsed:
        """The normalised answer, whatever it is."""
        return words(answer.text)

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        """Exact matches in per cent, after normalisation; `anls` beside it."""
        gold = [normalise(question.gold[0]) for question in questions]
        near = [anls(item.value, word) for word, item in zip(gold, parsed, strict=True)]
        right = [item.value == word for word, item in zip(gold, parsed, strict=True)]
        scores = {"anls": Clusters([question.group for question in questions]).rate(near)}
        return mean_score(self.name, questions, parsed, right, self.parts(questions), scores)

    @classmethod
    def example(cls, folder: Path) -> Reading:
        """Made-up pictures, for the contract suite."""
        return cls(path=named_pictures(folder), sets=4, cache=folder / "sheets")


USE = Reading
