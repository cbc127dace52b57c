"""MM-Vet: open questions that need several abilities at once, graded by a language model (Yu et al. 2023, 2308.02490).

In: `mm-vet.json` (questions, abilities), `images/`. Headline: the mean grade out of 100, from the judge's grade file
(`…-grade-Nruns.json`). Answers without grades cannot be scored as the benchmark means it: then the headline is
`mmvet_literal`, the share of the required words that stand in the answer, and the submission file goes to the judge.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from bunny.core.types import Parsed, Question
from bunny.evaluate.answers import Answers, Given
from bunny.evaluate.files import json_of, need, write_json
from bunny.evaluate.official.benchmark import DataFile, OfficialBenchmark, Read, ask, percent
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.official.mmvet_tables import graded_tables, grades_of, share_found

HOME = "https://github.com/yuweihao/MM-Vet"


class Mmvet(OfficialBenchmark):
    """218 questions about 200 pictures."""

    name: str = "mmvet"
    max_new_tokens: ClassVar[int] = 1024
    FILES: ClassVar = (DataFile("mm-vet.json", HOME, 218), DataFile("images", HOME, pictures=True))
    RULES: ClassVar = dict.fromkeys(
        ("bunny", "official", "strict", "lmms_eval", "vlmevalkit"),
        "the judge's grade; without grades, the share of the required words that stand in the answer",
    )

    def load(self) -> list[Question]:
        questions = []
        for id, fact in json_of(self.file("mm-vet.json")).items():
            image, text, gold, needs = need(
                fact, ("imagename", "question", "answer", "capability"), f"{self.name}: {id}"
            )
            meta = {"abilities": tuple(sorted(set(needs))), "graded": False}
            questions.append(ask(id, text, self.folder() / "images" / image, [gold], image, **meta))
        return questions

    def key(self, given: Given) -> str:
        return f"v1_{given.id}" if given.id.isdecimal() else given.id

    def complete(self, answers: Answers) -> tuple[Sequence[Question], Answers]:
        if not all("score" in given.row for given in answers.given):
            return super().complete(answers)
        rows = [replace(given, text=json.dumps(grades_of(given))) for given in answers.given]
        graded = [replace(q, meta=MappingProxyType({**q.meta, "graded": True})) for q in self.questions()]
        return graded, replace(answers, given=rows)

    def credit(self, question: Question, parsed: Parsed) -> float:
        if question.meta["graded"]:
            grades = json.loads(parsed.value) if parsed.value else [0.0]
            return float(sum(grades) / len(grades))
        return max((share_found(wanted, parsed.value) for wanted in question.gold[0].split("<OR>")), default=0.0)

    def parts(self, question: Question) -> Iterable[str]:
        return tuple(question.meta["abilities"])

    def numbers(self, read: Read) -> dict[str, Any]:
        if not any(question.meta["graded"] for question in read.questions):
            value = percent([self.credit(*pair) for pair in zip(read.questions, read.parsed, strict=True)])
            return {"headline": {"mmvet_literal": value}, "numbers": {"literal": value}}
        return graded_tables(read)

    def submission(self, read: Read, path: Path) -> None:
        rows = zip(read.questions, read.given, strict=True)
        write_json(path, {question.id: given.text if given else "" for question, given in rows})

    @classmethod
    def example(cls, folder: Path) -> Mmvet:
        facts = {}
        for n, gold in enumerate(["-1<AND>-5", "cat<OR>kitten", "red"]):
            picture(folder / f"images/v1_{n}.png", n)
            about = {"question": "What is it?", "answer": gold, "capability": ["rec", "ocr"][: 1 + n % 2]}
            facts[f"v1_{n}"] = {"imagename": f"v1_{n}.png", **about}
        write_json(folder / "mm-vet.json", facts)
        return cls(data=folder, profile="strict")


USE = Mmvet
