"""GQA: compositional questions on real pictures (Hudson & Manning 2019, arXiv:1902.09506; testdev balanced).

In: `bunny_gqa_testdev_balanced.jsonl` (prompts), `testdev_balanced_questions.json` (gold), `images/`. Headline:
accuracy, exact match. The original takes full stops off the end and lowers the case; the official script does neither.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from bunny.core.types import Parsed, Question
from bunny.evaluate.answers import Answers
from bunny.evaluate.files import json_of, jsonl_of, need, write_json, write_jsonl
from bunny.evaluate.official.benchmark import WORD, DataFile, OfficialBenchmark, Read, ask, percent
from bunny.evaluate.official.gqa_tables import by_kind, distance, steps
from bunny.evaluate.official.made_up import picture

_NO_MARKS = str.maketrans("", "", string.punctuation)
GQA = "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/gqa"
READERS: dict[str, Callable[[str], str]] = {
    "bunny": lambda text: text.rstrip(".").lower(),
    "official": lambda text: text,
    "strict": lambda text: text.strip().rstrip(".").lower(),
    "lmms_eval": lambda text: text.lower().translate(_NO_MARKS),
    "vlmevalkit": lambda text: text.strip().lower(),
}


class Gqa(OfficialBenchmark):
    """12,578 questions about 398 pictures."""

    name: str = "gqa"
    FILES: ClassVar = (
        DataFile(
            "bunny_gqa_testdev_balanced.jsonl",
            GQA,
            12578,
            "515aab3142889269480c71212d3b5b8118704d8da6637d767a0cb5bdf80a3d35",
        ),
        DataFile(
            "testdev_balanced_questions.json",
            GQA + "/testdev_balanced_questions.tar.gz",
            12578,
            "14039069c0b3c797c7aa9bcd5f4c2aa4b5976e02c0b6773e1a584d942a03a318",
        ),
        DataFile("images", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip", pictures=True),
    )
    RULES: ClassVar = {
        "bunny": "equal, after lower case and without full stops at the end",
        "official": "equal, as it stands",
        "strict": "equal, after lower case and without space and full stops around it",
        "lmms_eval": "equal, without case and punctuation",
        "vlmevalkit": "equal, without case and space around it; a full stop makes it wrong",
    }

    def load(self) -> list[Question]:
        facts = json_of(self.file("testdev_balanced_questions.json"))
        rows = {str(row.get("question_id")): row for row in jsonl_of(self.file("bunny_gqa_testdev_balanced.jsonl"))}
        questions = []
        for id, fact in facts.items():
            where = f"{self.name}: question {id}"
            gold, image, types, text = need(fact, ("answer", "imageId", "types", "question"), where)
            prompt, file = need(rows[id], ("text", "image"), where) if id in rows else (text + WORD, f"{image}.jpg")
            meta = {"structural": types["structural"], "semantic": types["semantic"], "words": len(text.split())}
            meta |= {"steps": steps(fact), "balanced": fact["isBalanced"], "histogram": fact["groups"]["global"]}
            questions.append(ask(id, prompt, self.folder() / "images" / file, [gold], image, **meta))
        return questions

    def questions(self) -> Sequence[Question]:
        return [question for question in super().questions() if question.meta["balanced"]]

    def complete(self, answers: Answers) -> tuple[Sequence[Question], Answers]:
        """Only balanced questions count; answers to the others are known, and left out."""
        others = {question.id for question in self.load() if not question.meta["balanced"]}
        return self.questions(), replace(answers, given=[given for given in answers.given if given.id not in others])

    def read(self, question: Question, text: str) -> str:
        return READERS[self.profile](text)

    def credit(self, question: Question, parsed: Parsed) -> float:
        gold = self.read(question, question.gold[0]) if self.profile == "lmms_eval" else question.gold[0]
        return float(parsed.value == gold)

    def parts(self, question: Question) -> Iterable[str]:
        return ("open" if question.meta["structural"] == "query" else "binary", str(question.meta["structural"]))

    def numbers(self, read: Read) -> dict[str, Any]:
        points = [self.credit(*pair) for pair in zip(read.questions, read.parsed, strict=True)]
        table: dict[str, Any] = dict.fromkeys(("binary", "open", "accuracy", "validity", "plausibility"), 0.0)
        for name in ("binary", "open"):
            table[name] = percent([p for p, q in zip(points, read.questions, strict=True) if name in self.parts(q)], 2)
        table |= {"accuracy": percent(points, 2), "distribution": round(distance(read) / 100, 2)}
        table |= by_kind(read.questions, points)
        right = [question.id for question, point in zip(read.questions, points, strict=True) if point]
        exact = {"gqa_acc": percent(points)}
        return {"headline": {"gqa_acc": table["accuracy"]}, "exact": exact, "numbers": table, "correct_ids": right}

    @classmethod
    def example(cls, folder: Path) -> Gqa:
        facts, rows = {}, []
        for n, (text, gold, kind) in enumerate([("Is it red?", "yes", "verify"), ("What is it?", "cup", "query")] * 2):
            types = {"structural": kind, "semantic": "obj"}
            step = [{"operation": "select", "argument": "cup (1)"}]
            about = {"groups": {"global": "thing"}, "semantic": step, "isBalanced": True}
            facts[str(n)] = {"question": text, "answer": gold, "imageId": f"n{n % 2}", "types": types, **about}
            rows.append({"question_id": str(n), "image": f"n{n % 2}.jpg", "text": text + WORD})
            picture(folder / "images" / f"n{n % 2}.jpg", n % 2)
        write_json(folder / "testdev_balanced_questions.json", facts)
        write_jsonl(folder / "bunny_gqa_testdev_balanced.jsonl", rows)
        return cls(data=folder, profile="strict")


USE = Gqa
