"""ScienceQA: school questions with and without a picture (Lu et al. 2022, arXiv:2209.09513; test split).

In: `bunny_test_CQM-A.json` (prompts), `problems.json`, `pid_splits.json` (gold), `images/test/`. Headline: accuracy on
questions with a picture; all questions beside it. The original takes from each *answer's* prompt whether there was a
picture, so an answer that is missing leaves its IMG score; the other profiles take it from the question.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from bunny.core.types import Question
from bunny.evaluate.files import json_of, need, write_json
from bunny.evaluate.official import letters
from bunny.evaluate.official.benchmark import LETTER, DataFile, OfficialBenchmark, Read, ask, percent
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.official.scienceqa_tables import official_table
from bunny.evaluate.parse import choice

MARK = "<image>"
BUNNY = "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/scienceqa"
HOME = "https://drive.google.com/drive/folders/1w8imCXWYn2LxajmGeGH_g5DaL2rabHev"
LETTERS = "ABCDE"


class Scienceqa(OfficialBenchmark):
    """4,241 questions, 2,017 of them with a picture."""

    name: str = "scienceqa"
    max_new_tokens: ClassVar[int] = 1024
    headline_part: ClassVar[str] = "image"
    FILES: ClassVar = (
        DataFile(
            "bunny_test_CQM-A.json", BUNNY, 4241, "a2dc5ea9fba561b0d0d8ecc80e688d3b0e1ff308e06c4f4f94cff86b20ec2f0a"
        ),
        DataFile("problems.json", HOME, 21208),
        DataFile("pid_splits.json", HOME),
        DataFile("images/test", HOME, pictures=True),
    )
    RULES: ClassVar = {
        "bunny": "'B', 'B. …' or one 'The answer is B.'; IMG by the answer's prompt",
        "official": "'B', 'B. …' or one 'The answer is B.'; IMG by the question",
        "strict": "the letter, alone or first; or the only letter that stands alone",
        "lmms_eval": "'b' or 'B. …'",
        "vlmevalkit": "the only letter near the end, else after 'answer is', else the choice's words",
    }

    def load(self) -> list[Question]:
        problems, splits = json_of(self.file("problems.json")), json_of(self.file("pid_splits.json"))
        rows = {str(row.get("id")): row for row in json_of(self.file("bunny_test_CQM-A.json"))}
        questions = []
        for id in splits["test"]:
            where = f"{self.name}: question {id}"
            fact, row = problems.get(id, {}), rows.get(id, {})
            choices, answer = need(fact, ("choices", "answer"), f"{where}: problems.json")
            [talk] = need(row, ("conversations",), f"{where}: bunny_test_CQM-A.json")
            text = talk[0]["value"].replace(MARK, "").strip() + LETTER
            image = self.folder() / "images" / "test" / row["image"] if "image" in row else None
            options = dict(zip(LETTERS, choices, strict=False))
            has = bool(fact.get("image"))
            questions.append(ask(id, text, image, [LETTERS[answer]], options=options, has_image=has, fact=fact))
        return questions

    def read(self, question: Question, text: str) -> str:
        options = question.meta["options"]
        if self.profile == "vlmevalkit":
            return letters.vlmevalkit(text, options)
        if self.profile == "lmms_eval":
            return letters.scienceqa_lmms_eval(text)
        if self.profile == "strict":
            return choice(text, "".join(options)).value
        return letters.scienceqa(text)

    def parts(self, question: Question) -> Iterable[str]:
        return ("image" if question.meta["has_image"] else "text",)

    def numbers(self, read: Read) -> dict[str, Any]:
        points = [self.credit(*pair) for pair in zip(read.questions, read.parsed, strict=True)]
        shown = [self._shown(read, row) for row in range(len(points))]
        image = [point for point, seen in zip(points, shown, strict=True) if seen]
        table = {"acc": percent(points), "correct": int(sum(points)), "count": len(points)}
        table |= {"image_acc": percent(image), "image_correct": int(sum(image)), "image_count": len(image)}
        index = {
            q.id: LETTERS.index(item.value) if item.value in q.meta["options"] else -1
            for q, item in zip(read.questions, read.parsed, strict=True)
        }
        return {
            "headline": {"sqa_img": table["image_acc"], "sqa_all": table["acc"]},
            "numbers": table,
            "official": official_table([question.meta["fact"] for question in read.questions], points),
            "parsed_idx": index,
            "correct_ids": [question.id for question, point in zip(read.questions, points, strict=True) if point],
        }

    @classmethod
    def example(cls, folder: Path) -> Scienceqa:
        problems, rows = {}, []
        for n in range(4):
            about = {"subject": "natural science", "topic": "biology", "grade": "grade7", "hint": "", "split": "test"}
            shown = {"image": f"{n}/image.png"} if n < 3 else {}
            problems[str(n)] = {"choices": ["cat", "dog"], "answer": n % 2, **about, "image": "image.png" * (n < 3)}
            text = f"{MARK}\n" * (n < 3) + "Which is it?\nA. cat\nB. dog"
            rows.append({"id": str(n), **shown, "conversations": [{"from": "human", "value": text}]})
            picture(folder / f"images/test/{n}/image.png", n)
        write_json(folder / "problems.json", problems)
        write_json(folder / "pid_splits.json", {"test": list(problems)})
        write_json(folder / "bunny_test_CQM-A.json", rows)
        return cls(data=folder, profile="strict")

    def _shown(self, read: Read, row: int) -> bool:
        given = read.given[row]
        if self.profile != "bunny":
            return bool(read.questions[row].meta["has_image"])
        return given is not None and MARK in given.prompt


USE = Scienceqa
