"""What is in the picture? One open question about each picture with known words.

In: a Parquet file with columns `image` (encoded bytes), `words` (what the picture surely shows) and, if there are,
`absent` (what it surely does not show) and `id`. Out: one question a picture; the answer is right if it is one of the
picture's words. `candidates` lists all words, for who wants to know how likely each of them was.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from PIL import Image
from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.recipe import Section
from bunny.core.seeds import stream
from bunny.core.types import Answer, EvalResult, ImageRef, Parsed, Question
from bunny.evaluate.pairing import read_words
from bunny.evaluate.parse import normalise, words
from bunny.evaluate.scoring import mean_score


class Naming(Section):
    """Names of things, exact match with any of the picture's words."""

    name: str = "naming"
    path: Path  # Parquet file; relative to `folder`
    folder: Path = Path()  # where the recipe lies
    pictures: int | None = Field(None, gt=0, description="pictures asked about; default: all that have words")
    question: str = "What is in the picture?"
    suffix: str = ""  # appended to the question
    seed: int = 0  # which pictures are drawn

    def questions(self) -> Sequence[Question]:
        """One a picture, in the order of the file. Raises UserError if no picture has words."""
        path = self.folder / self.path
        known = read_words(path, {}, ())
        rows = [row for row, shown in enumerate(known.present) if shown]
        if not rows:
            raise UserError(f"{path}: no picture has words", fix="check its `words` column")
        if self.pictures is not None:
            rows = sorted(stream("evaluate.naming", self.seed).permutation(rows)[: self.pictures].tolist())
        return [
            Question(
                known.ids[row],
                self.question + self.suffix,
                (ImageRef(str(path), str(row)),),
                tuple(sorted(known.present[row])),
                known.ids[row],
                MappingProxyType({"absent": sorted(known.absent[row])}),
            )
            for row in rows
        ]

    def candidates(self) -> tuple[str, ...]:
        """All words of the file."""
        known = read_words(self.folder / self.path, {}, ())
        return tuple(sorted(frozenset[str]().union(*known.present)))

    def parse(self, question: Question, answer: Answer) -> Parsed:
        """The answer without case, punctuation and article."""
        return words(answer.text)

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        """Accuracy in per cent."""
        right = [
            item.value in {normalise(word) for word in question.gold}
            for question, item in zip(questions, parsed, strict=True)
        ]
        return mean_score(self.name, questions, parsed, right)

    @classmethod
    def example(cls, folder: Path) -> Naming:
        """Six made-up pictures, for the contract suite."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        shown = [["animal", "dog"], ["car"], ["ice cream"], [], ["apple"], ["owl"]]
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        table = pa.table({"image": [picture.getvalue()] * len(shown), "words": pa.array(shown, pa.list_(pa.string()))})
        pq.write_table(table, folder / "pictures.parquet")
        return cls(path=folder / "pictures.parquet")


USE = Naming
