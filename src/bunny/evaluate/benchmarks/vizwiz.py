"""VizWiz: questions that blind people asked about their own photographs (Gurari et al. 2018, arXiv:1802.08218).

In: `bunny_test.jsonl` (prompts), `val.json` (ten answers each; without it a submission is written), `test/` (pictures).
Headline: soft accuracy with M4C's normal form, which stands for the server's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from bunny.core.types import Parsed, Question
from bunny.evaluate.answers import Answers
from bunny.evaluate.files import json_of, jsonl_of, need, write_json, write_jsonl
from bunny.evaluate.official.benchmark import WORD, DataFile, Read, ask, percent
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.official.people import PeoplesAnswers
from bunny.evaluate.official.vqa_text import evalai

UNSURE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
HOME = "https://vizwiz.org/tasks-and-datasets/vqa/"


class Vizwiz(PeoplesAnswers):
    """8,000 questions (test) or 4,319 (val)."""

    name: str = "vizwiz"
    FILES: ClassVar = (
        DataFile(
            "bunny_test.jsonl",
            "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/viswiz",
            8000,
            "25b71577dafc1e4049b1a273b8e58d0d8bca510510b512e4925730905c3eceac",
        ),
        DataFile("val.json", HOME, 4319),
        DataFile("test", HOME, pictures=True),
    )

    def load(self) -> list[Question]:
        rows = jsonl_of(self.file("bunny_test.jsonl")) if self.has("bunny_test.jsonl") else []
        prompts = {str(row.get("image")): row for row in rows}
        facts = json_of(self.file("val.json")) if self.has("val.json") or not rows else rows
        questions = []
        for number, fact in enumerate(facts, 1):
            where = f"{self.name}: question {number}"
            image, text = need(fact, ("image", "question|text"), where)
            row = prompts.get(image, {"text": f"{text}{UNSURE}{WORD}"})
            gold = [each["answer"] for each in fact.get("answers", ())]
            folder = self.folder() / ("val" if "_val_" in image else "test")
            alias, kind = str(row.get("question_id", "")), fact.get("answer_type", "")
            questions.append(ask(image, row["text"], folder / image, gold, alias=alias, kind=kind, submitted=False))
        return questions

    def aliases(self, questions: Sequence[Question]) -> Mapping[str, str]:
        return {question.meta["alias"]: question.id for question in questions if question.meta["alias"]}

    def complete(self, answers: Answers) -> tuple[Sequence[Question], Answers]:
        """Rows that name pictures are a submission: they were normalised once already."""
        questions = self.questions()
        if all("image" in given.row and "question_id" not in given.row for given in answers.given):
            questions = [replace(q, meta=MappingProxyType({**q.meta, "submitted": True})) for q in questions]
        return questions, answers

    def credit(self, question: Question, parsed: Parsed) -> float:
        """The original and the server score the submission, so its normal form is normalised once more."""
        if self.profile in ("bunny", "official") and not question.meta["submitted"]:
            parsed = Parsed(evalai(parsed.value), parsed.status)
        return super().credit(question, parsed)

    def parts(self, question: Question) -> Iterable[str]:
        return (question.meta["kind"],) if question.meta["kind"] else ()

    def numbers(self, read: Read) -> dict[str, Any]:
        points = [self.credit(*pair) for pair in zip(read.questions, read.parsed, strict=True)]
        groups: dict[str, list[float]] = defaultdict(list)
        for question, point in zip(read.questions, points, strict=True):
            groups[question.meta["kind"]].append(point)
        kinds = {kind: {"acc": percent(each), "n": len(each)} for kind, each in groups.items() if kind}
        numbers = {"accuracy": percent(points), "per_answer_type": kinds}
        return {"headline": {"vizwiz_softacc": percent(points)}, "numbers": numbers, "per_sample": points}

    def submission(self, read: Read, path: Path) -> None:
        rows = zip(read.questions, read.parsed, strict=True)
        write_json(path, [{"image": question.id, "answer": evalai(item.value)} for question, item in rows])

    @classmethod
    def example(cls, folder: Path) -> Vizwiz:
        facts, rows = [], []
        for n, word in enumerate(["cup", "unanswerable", "red"]):
            image = f"VizWiz_test_{n:08d}.jpg"
            picture(folder / "test" / image, n)
            facts.append({"image": image, "question": "What is it?", "answers": [{"answer": word}] * 10})
            rows.append({"question_id": n, "image": image, "text": f"What is it?{UNSURE}{WORD}"})
        write_json(folder / "val.json", facts)
        write_jsonl(folder / "bunny_test.jsonl", rows)
        return cls(data=folder, profile="strict")


USE = Vizwiz
