"""TextVQA: questions that need reading (Singh et al. 2019, arXiv:1904.08920; val, with OCR tokens in the prompt).

In: `bunny_textvqa_val_v051_ocr.jsonl` (prompts), `TextVQA_0.5.1_val.json` (ten answers each), `train_images/`.
Headline: M4C's soft accuracy. Rows name the picture only, so the question in the prompt tells them apart; the original
averages over the answers that are there, the other profiles over all questions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from bunny.core.types import Question
from bunny.evaluate.answers import Given
from bunny.evaluate.files import json_of, jsonl_of, need, write_json, write_jsonl
from bunny.evaluate.official.benchmark import WORD, DataFile, Read, ask, percent
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.official.people import PeoplesAnswers

OCR = "Reference OCR token:"
_SHORT = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)


class Textvqa(PeoplesAnswers):
    """5,000 questions about 3,166 pictures."""

    name: str = "textvqa"
    FILES: ClassVar = (
        DataFile(
            "bunny_textvqa_val_v051_ocr.jsonl",
            "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/textvqa",
            5000,
            "9f60db6fb89e369263ed676dc26b48d00d4a462e73f0930c09d23394e9dcf3a3",
        ),
        DataFile("TextVQA_0.5.1_val.json", "https://textvqa.org/dataset", 5000),
        DataFile("train_images", "https://textvqa.org/dataset", pictures=True),
    )

    def load(self) -> list[Question]:
        prompts = {
            _key(str(row.get("question_id")), str(row.get("text"))): str(row.get("text"))
            for row in jsonl_of(self.file("bunny_textvqa_val_v051_ocr.jsonl"))
        }
        questions = []
        for row in json_of(self.file("TextVQA_0.5.1_val.json"))["data"]:
            where = f"{self.name}: question {row.get('question_id')}"
            image, text, gold = need(row, ("image_id", "question", "answers"), where)
            id = f"{image}: {text.lower()}"
            file = self.folder() / "train_images" / f"{image}.jpg"
            questions.append(ask(id, prompts.get(id, text.capitalize() + WORD), file, gold, image))
        return questions

    def key(self, given: Given) -> str:
        return _key(given.id, given.prompt) if given.prompt else given.id

    def numbers(self, read: Read) -> dict[str, Any]:
        rows = read.order if self.profile == "bunny" else range(len(read.questions))
        points = [self.credit(read.questions[row], read.parsed[row]) for row in rows]
        value = percent(points, 2)
        exact = {"textvqa": percent(points)}
        return {"headline": {"textvqa": value}, "exact": exact, "numbers": {"accuracy": value}, "per_sample": points}

    @classmethod
    def example(cls, folder: Path) -> Textvqa:
        data, rows = [], []
        asked = [("what word is it?", "stop"), ("What year is it?", "1998"), ("Which day?", "may 1")]
        for n, (text, word) in enumerate(asked):
            image = f"p{n % 2}"
            picture(folder / "train_images" / f"{image}.jpg", n % 2)
            data.append({"question": text, "image_id": image, "question_id": n, "answers": [word] * 10})
            rows.append({"question_id": image, "image": f"{image}.jpg", "text": f"{text}\n{OCR} A, {word}{WORD}"})
        write_json(folder / "TextVQA_0.5.1_val.json", {"data": data})
        write_jsonl(folder / "bunny_textvqa_val_v051_ocr.jsonl", rows)
        return cls(data=folder, profile="strict")


def _key(image: str, prompt: str) -> str:
    """Picture and question, in lower case, from any of the three forms of the prompt."""
    lines = prompt.split("\n")
    short = _SHORT.search(prompt) if prompt.startswith("OCR tokens: ") else None
    behind = prompt.startswith(OCR) and len(lines) > 1
    return f"{image}: {(short[1] if short else lines[1] if behind else lines[0]).lower()}"


USE = Textvqa
