"""POPE: is an object in the picture? (Li et al. 2023, arXiv:2305.10355; COCO val2014, three ways to choose objects).

In: `bunny_pope_test.jsonl` (questions), `coco/coco_pope_*.json` (labels), `val2014/` (pictures). Headline: F1 averaged
over random, popular and adversarial objects. The original aligns answers and labels by line number, without looking at
ids; the profile `bunny` repeats that, all others join by id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bunny.core.errors import UserError
from bunny.core.types import EvalResult, Parsed, Question
from bunny.evaluate.files import jsonl_of, need, write_jsonl
from bunny.evaluate.official import yes_no
from bunny.evaluate.official.benchmark import WORD, DataFile, OfficialBenchmark, Read, ask
from bunny.evaluate.official.confusion import counts, mean_f1
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.parse import normalise
from bunny.evaluate.parse import yes_no as first_word

KINDS = ("adversarial", "popular", "random")
LABELS = "https://github.com/AoiDragon/POPE/tree/e3e39262c85a6a83f26cf5094022a782cb0df58d/output/coco"
READERS: dict[str, Callable[[str], str]] = {
    "bunny": yes_no.pope,
    "official": yes_no.pope,
    "strict": lambda text: first_word(text).value,
    "lmms_eval": yes_no.exactly,
    "vlmevalkit": yes_no.one_of_both,
}


class Pope(OfficialBenchmark):
    """8,910 yes/no questions about 500 pictures."""

    name: str = "pope"
    FILES: ClassVar = (
        DataFile(
            "bunny_pope_test.jsonl",
            "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/pope",
            8910,
            "1d3b41f0dced74b4f361c659787ef673497cfac54a6be7bde00eb405bab03c70",
        ),
        *(DataFile(f"coco/coco_pope_{kind}.json", LABELS, 2910 if kind == "random" else 3000) for kind in KINDS),
        DataFile("val2014", "http://images.cocodataset.org/zips/val2014.zip", pictures=True),
    )
    RULES: ClassVar = {
        "bunny": "no if No, not or no is a word of the first sentence, else yes; labels by line order",
        "official": "no if No, not or no is a word of the first sentence, else yes; labels by id",
        "strict": "the first word, if it is yes or no",
        "lmms_eval": "the whole answer must be yes or no; F1 leaves out others where the label is yes",
        "vlmevalkit": "exactly one of the words yes and no occurs",
    }

    def load(self) -> list[Question]:
        rows = jsonl_of(self.file("bunny_pope_test.jsonl"))
        labels = {kind: iter(jsonl_of(self.file(f"coco/coco_pope_{kind}.json"))) for kind in KINDS}
        questions = []
        for number, row in enumerate(rows, 1):
            where = f"{self.name}: question {number}"
            id, image, text, kind = need(row, ("question_id", "image", "text", "category"), where)
            label = next(labels.get(kind, iter(())), None)
            if label is None or label.get("text") != text.removesuffix(WORD) or label.get("image") != image:
                raise UserError(f"{where}: no label for it in coco_pope_{kind}.json", fix=f"get both again: {LABELS}")
            gold = "no" if label.get("label") == "no" else "yes"
            questions.append(ask(id, text, self.folder() / "val2014" / image, [gold], image, kind=kind, place=number))
        return questions

    def read(self, question: Question, text: str) -> str:
        return READERS[self.profile](text)

    def as_asked(self, question: Question, text: str) -> bool:
        return normalise(text) in ("yes", "no")

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        return mean_f1(self.name, questions, parsed, self.profile == "lmms_eval")

    def numbers(self, read: Read) -> dict[str, Any]:
        lmms = self.profile == "lmms_eval"
        table = {kind: counts(self._pairs(read, kind), lmms) for kind in KINDS}
        mean = sum(row["f1_score"] for row in table.values()) / len(KINDS)
        everything = [pair for kind in KINDS for pair in self._pairs(read, kind)]
        return {
            "headline": {"pope_average_f1_pct": round(100 * mean, 4)},
            "exact": {"pope_average_f1_pct": 100 * mean},
            "numbers": {**table, "average_f1": mean},
            "all": counts(everything, lmms),
        }

    def _pairs(self, read: Read, kind: str) -> list[tuple[str, str]]:
        """(said, label) of one kind: by line order as the original has it, else by id."""
        rows = [row for row, question in enumerate(read.questions) if question.meta["kind"] == kind]
        rows.sort(key=lambda row: int(read.questions[row].meta["place"]))
        labels = [read.questions[row].gold[0] for row in rows]
        if self.profile != "bunny":
            return [(read.parsed[row].value, label) for row, label in zip(rows, labels, strict=True)]
        said = [read.parsed[row].value for row in read.order if read.questions[row].meta["kind"] == kind]
        return list(zip(said, labels, strict=False))

    @classmethod
    def example(cls, folder: Path) -> Pope:
        """Two pictures, a yes and a no about each in every kind."""
        rows = [
            (f"{n}.png", f"Is there a {word} in the image?", gold)
            for n in (1, 2)
            for word, gold in (("dog", "yes"), ("cat", "no"))
        ]
        for n in (1, 2):
            picture(folder / "val2014" / f"{n}.png", n)
        for kind in KINDS:
            labels = [{"image": image, "text": text, "label": gold} for image, text, gold in rows]
            write_jsonl(folder / f"coco/coco_pope_{kind}.json", labels)
        asked = [{"image": i, "text": t + WORD, "category": kind} for kind in KINDS for i, t, _ in rows]
        write_jsonl(folder / "bunny_pope_test.jsonl", [{"question_id": n, **row} for n, row in enumerate(asked)])
        return cls(data=folder, profile="strict")


USE = Pope
