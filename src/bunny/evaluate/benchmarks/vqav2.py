"""VQAv2: short answers about COCO pictures, compared with ten people's (Goyal et al. 2017, arXiv:1612.00837).

In: `v2_mscoco_val2014_annotations.json` with `v2_OpenEnded_mscoco_val2014_questions.json` (val, with gold), or
`bunny_vqav2_mscoco_test-dev2015.jsonl` (no gold: a submission is written); pictures in `val2014/` or `test2015/`.
Headline: soft accuracy. The original sends every answer through EvalAI's processor before the official code sees it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from bunny.core.types import Question
from bunny.evaluate.files import json_of, jsonl_of, need, write_json
from bunny.evaluate.official.benchmark import WORD, DataFile, Read, ask, percent
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.official.people import Vqa2Answers
from bunny.evaluate.official.vqa_text import evalai

ANNOTATIONS, QUESTIONS = "v2_mscoco_val2014_annotations.json", "v2_OpenEnded_mscoco_val2014_questions.json"
TESTS = ("bunny_vqav2_mscoco_test-dev2015.jsonl", "bunny_vqav2_mscoco_test2015.jsonl")
HOME = "https://visualqa.org/download.html"
BUNNY = "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/vqav2"


class Vqav2(Vqa2Answers):
    """214,354 questions (val) or 107,394 (test-dev)."""

    name: str = "vqav2"
    FILES: ClassVar = (
        DataFile(ANNOTATIONS, HOME, 214354),
        DataFile(QUESTIONS, HOME, 214354),
        DataFile(TESTS[0], BUNNY, 107394),
        DataFile("val2014", "http://images.cocodataset.org/zips/val2014.zip", pictures=True),
        DataFile("test2015", "http://images.cocodataset.org/zips/test2015.zip", pictures=True),
    )

    def load(self) -> list[Question]:
        if not self.has(ANNOTATIONS):
            rows = jsonl_of(self.file(*TESTS))
            asked = [need(row, ("question_id", "text", "image"), f"{self.name}: a question") for row in rows]
            return [ask(id, text, self.folder() / "test2015" / image, [], image) for id, text, image in asked]
        texts = {}
        if self.has(QUESTIONS):
            texts = {row["question_id"]: row["question"] + WORD for row in json_of(self.file(QUESTIONS))["questions"]}
        elif self.has(TESTS[1]):
            texts = {row["question_id"]: row["text"] for row in jsonl_of(self.file(TESTS[1]))}
        questions = []
        for row in json_of(self.file(ANNOTATIONS))["annotations"]:
            where = f"{self.name}: annotation {row.get('question_id')}"
            id, answers, image, kind, type = need(
                row, ("question_id", "answers", "image_id", "question_type", "answer_type"), where
            )
            file = self.folder() / "val2014" / f"COCO_val2014_{int(image):012d}.jpg"
            gold = [each["answer"] for each in answers]
            questions.append(ask(id, texts.get(id, ""), file, gold, str(image), question_type=kind, answer_type=type))
        return questions

    def parts(self, question: Question) -> Iterable[str]:
        return (str(question.meta["answer_type"]),) if "answer_type" in question.meta else ()

    def numbers(self, read: Read) -> dict[str, Any]:
        """The official code's table; after Bunny's processor too, where the profile is `bunny` or `official`."""
        table = self._table(read)
        headline = {"vqav2": table["overall"]}
        if self.profile not in ("bunny", "official"):
            return {"headline": headline, "numbers": table}
        raw, processed = (self.model_copy(update={"profile": p})._table(read) for p in ("official", "bunny"))
        headline = {"vqav2": raw["overall"], "vqav2_after_bunny_processor": processed["overall"]}
        return {"headline": headline, "numbers": raw, "after_bunny_processor": processed, "profile_numbers": table}

    def submission(self, read: Read, path: Path) -> None:
        rows = zip(read.questions, read.parsed, strict=True)
        write_json(path, [{"question_id": _id(q.id), "answer": evalai(item.value)} for q, item in rows])

    @classmethod
    def example(cls, folder: Path) -> Vqav2:
        rows, asked = [], []
        for n, (text, gold) in enumerate([("Is it red?", "yes"), ("What is it?", "cup")] * 2):
            picture(folder / "val2014" / f"COCO_val2014_{n % 2:012d}.jpg", n % 2)
            about = {"question_id": n, "image_id": n % 2, "question_type": text[:5], "answer_type": "other"}
            rows.append({**about, "answers": [{"answer": gold, "answer_id": k} for k in range(1, 11)]})
            asked.append({"question_id": n, "image_id": n % 2, "question": text})
        write_json(folder / ANNOTATIONS, {"annotations": rows})
        write_json(folder / QUESTIONS, {"questions": asked})
        return cls(data=folder, profile="strict")

    def _table(self, read: Read) -> dict[str, Any]:
        points = {q.id: self.credit(q, item) for q, item in zip(read.questions, read.parsed, strict=True)}
        table: dict[str, Any] = {"overall": percent(list(points.values()), 4)}
        for name, field in (("perQuestionType", "question_type"), ("perAnswerType", "answer_type")):
            groups: dict[str, list[float]] = defaultdict(list)
            for question in read.questions:
                groups[str(question.meta.get(field, ""))].append(points[question.id])
            table[name] = {kind: percent(each, 4) for kind, each in groups.items()}
        return {**table, "per_question": {id: round(100 * point, 4) for id, point in points.items()}}


def _id(id: str) -> int | str:
    return int(id) if id.isdecimal() else id


USE = Vqav2
