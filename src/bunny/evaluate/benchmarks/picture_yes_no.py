"""Yes/no questions about what a picture shows, in POPE's manner (Li et al. 2023, arXiv:2305.10355).

In: a Parquet file with columns `image` (encoded bytes), `words` (what the picture surely shows) and, if there is
one, `absent` (what it surely does not show) and `id`. Out: questions, accuracy, precision, recall, F1, rate of "yes".

A model that does not look is at chance by construction (`evaluate/pairing.py`): every word is asked as often with the
answer yes as with no, and so is every picture; yes-or-no answers that depend on the text alone score exactly 50 %.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image
from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.seeds import stream
from bunny.core.types import Answer, EvalResult, FloatArray, ImageRef, Parsed, Question
from bunny.evaluate.named import HeldOut
from bunny.evaluate.pairing import pair_up, read_words
from bunny.evaluate.parse import yes_no
from bunny.evaluate.scoring import mean_score
from bunny.evaluate.stats import Clusters, ratio


class PictureYesNo(HeldOut):
    """Balanced object questions on a Parquet file of pictures with known words."""

    name: str = "picture_yes_no"
    path: Path  # Parquet file; relative to `folder`
    pictures: int | None = Field(None, ge=2, description="pictures asked about; default: all that can be")
    per_picture: int = Field(6, ge=2, multiple_of=2, description="at most so many questions about one picture")
    words: tuple[str, ...] = ()  # ask only these words; default: all
    confusable: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # no fair "no" beside these, if no `absent`
    question: str = Field("Is there {a} {word} in the picture?", pattern=r"\{word\}")  # {a}: "a" or "an"
    suffix: str = ""  # appended to the question
    seed: int = 0  # which pictures are paired, and over which words

    def questions(self) -> Sequence[Question]:
        """The questions, picture by picture. Raises UserError if the file cannot give a single pair."""
        path = self.folder / self.path
        known = read_words(path, self.confusable, self.words)
        rng = stream("evaluate.picture_yes_no", self.seed)
        present, absent = (
            [frozenset(filter(self.in_split, words)) for words in side] for side in (known.present, known.absent)
        )
        asked = pair_up(present, absent, self.pictures, self.per_picture // 2, rng)
        if not asked:
            raise UserError(
                f"{path}: no two pictures differ in their words", fix="check its `words` column and `split`"
            )
        wordless = sum(not words for words in known.present)
        log.info("%s: %d of %d pictures asked (%d without words)", self.name, len(asked), len(known.ids), wordless)
        return [
            self._question(known.ids[row], ImageRef(str(path), str(row)), word, gold)
            for row in sorted(asked)
            for word, gold in sorted(asked[row].items())
        ]

    def parse(self, question: Question, answer: Answer) -> Parsed:
        """The first word, if it is yes or no."""
        return yes_no(answer.text)

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        """Accuracy as headline; an answer that is neither yes nor no is wrong and finds nothing."""
        gold = np.array([question.gold[0] == "yes" for question in questions])
        said = np.array([item.value == "yes" for item in parsed])
        right = np.array([item.value == q.gold[0] for q, item in zip(questions, parsed, strict=True)])
        clusters = Clusters([question.group for question in questions])
        counts = np.stack([gold & said, gold, said], axis=1)  # (N, 3): found, there, claimed
        scores = {
            "precision": clusters.rate(gold & said, said),
            "recall": clusters.rate(gold & said, gold),
            "f1": clusters.bootstrap(counts, _f1),
            "yes_rate": clusters.rate(said),
        }
        known = np.array([self.seen(str(question.meta["word"])) for question in questions])
        parts = {"seen": known, "unseen": ~known} if self.trained and known.any() and not known.all() else {}
        return mean_score(self.name, questions, parsed, right, parts, scores=scores)

    @classmethod
    def example(cls, folder: Path) -> PictureYesNo:
        """Eight made-up pictures, for the contract suite."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        words = [["animal", "dog"], ["car"], ["tree"], ["animal", "owl"], ["car", "tree"], [], ["apple"], ["owl"]]
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "PNG")
        table = pa.table({"image": [picture.getvalue()] * len(words), "words": pa.array(words, pa.list_(pa.string()))})
        pq.write_table(table, folder / "pictures.parquet")
        return cls(path=folder / "pictures.parquet", confusable={"owl": ("animal",)})

    def _question(self, picture: str, image: ImageRef, word: str, gold: str) -> Question:
        a = "an" if word[:1].lower() in "aeiou" else "a"
        text = self.question.replace("{a}", a).replace("{word}", word) + self.suffix
        meta = MappingProxyType({"kind": "yes_no", "word": word})
        return Question(f"{picture}:{word}", text, (image,), (gold,), picture, meta)


def _f1(sums: FloatArray) -> FloatArray:
    return ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])  # (…, 3) -> (…)


USE = PictureYesNo
