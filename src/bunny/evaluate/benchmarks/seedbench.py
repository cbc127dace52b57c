"""SEED-Bench-1: multiple choice on pictures and on the middle frame of videos (Li et al. 2023, arXiv:2307.16125).

In: `SEED-Bench.json` (gold, kinds), `bunny-seed-bench.jsonl` (prompts), `SEED-Bench-image/`, `SEED-Bench-video-image/`.
Headline: accuracy over all; pictures and videos beside it. The original and the leader board want the letter and
nothing else: "A." is wrong. Answer tables that hold the gold letters (`gt_answer`) can be scored without the files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bunny.core.types import Question
from bunny.evaluate.answers import Answers
from bunny.evaluate.files import json_of, jsonl_of, need, write_json, write_jsonl
from bunny.evaluate.official import letters
from bunny.evaluate.official.benchmark import LETTER, DataFile, OfficialBenchmark, Read, ask, percent
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.official.seedbench_gold import gold_table
from bunny.evaluate.parse import choice

HOME = "https://huggingface.co/datasets/AILab-CVC/SEED-Bench"
BUNNY = "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/seed-bench"
READERS: dict[str, Callable[[str, Mapping[str, str]], str]] = {
    "bunny": lambda text, _: text if text in tuple("ABCD") else "",
    "official": lambda text, _: text if text in tuple("ABCD") else "",
    "strict": lambda text, _: choice(text).value,
    "lmms_eval": lambda text, _: text.strip()[:1].upper(),
    "vlmevalkit": letters.vlmevalkit,
}


class Seedbench(OfficialBenchmark):
    """17,990 questions in 12 kinds, 14,233 of them about pictures."""

    name: str = "seedbench"
    FILES: ClassVar = (
        DataFile("SEED-Bench.json", HOME, 17990),
        DataFile("bunny-seed-bench.jsonl", BUNNY, 17990),
        DataFile("SEED-Bench-image", HOME, pictures=True),
        DataFile("SEED-Bench-video-image", HOME, pictures=True),
    )
    RULES: ClassVar = {
        "bunny": "the letter and nothing else",
        "official": "the letter and nothing else",
        "strict": "the letter, alone or first; or the only letter that stands alone",
        "lmms_eval": "the first character, in either case",
        "vlmevalkit": "the only letter near the end, else after 'answer is', else the choice's words",
    }

    def load(self) -> list[Question]:
        tree = json_of(self.file("SEED-Bench.json"))
        kinds = {number: name for name, number in tree["question_type"].items()}
        rows = {str(row.get("question_id")): row for row in jsonl_of(self.file("bunny-seed-bench.jsonl"))}
        questions = []
        for fact in tree["questions"]:
            id = str(fact.get("question_id"))
            where = f"{self.name}: question {id}"
            gold, medium, kind = need(fact, ("answer", "data_type", "question_type_id"), where)
            options = {letter: str(fact[f"choice_{letter.lower()}"]) for letter in "ABCD"}
            listed = "".join(f"\n{letter}. {text}" for letter, text in options.items())
            row = rows.get(id, {"text": f"{fact['question']}{listed}{LETTER}", "image": fact["data_id"]})
            meta = {"medium": medium, "kind": kinds.get(kind, str(kind)), "options": options}
            image = self.folder() / str(row["image"])
            questions.append(ask(id, row["text"], image, [gold], str(fact["data_id"]), **meta))
        return questions

    def complete(self, answers: Answers) -> tuple[Sequence[Question], Answers]:
        """Without the files, a table with gold letters stands for them; each of its rows is a question of its own."""
        if self.has("SEED-Bench.json") or not all("gt_answer" in given.row for given in answers.given):
            return super().complete(answers)
        return gold_table(answers)

    def read(self, question: Question, text: str) -> str:
        return READERS[self.profile](text, question.meta["options"])

    def parts(self, question: Question) -> Iterable[str]:
        kind = (question.meta["kind"],) if question.meta["kind"] else ()
        return (question.meta["medium"], *kind)

    def numbers(self, read: Read) -> dict[str, Any]:
        groups: dict[str, list[float]] = defaultdict(list)
        for question, parsed in zip(read.questions, read.parsed, strict=True):
            for part in ("all", *self.parts(question)):
                groups[part].append(self.credit(question, parsed))
        exact = {f"seed_{part}": percent(groups[part]) for part in ("all", "image", "video")}
        digits = 2 if self.profile == "bunny" else None
        headline = {name: value if digits is None else round(value, digits) for name, value in exact.items()}
        table: dict[str, float] = {
            name: percent(each, 2) for name, each in groups.items() if name not in ("all", "image", "video")
        }
        printed = {"Total accuracy": "all", "image accuracy": "image", "video accuracy": "video"}
        table |= {title: percent(groups[part], 2) for title, part in printed.items()}
        right = [q.id for q, item in zip(read.questions, read.parsed, strict=True) if self.credit(q, item)]
        return {"headline": headline, "exact": exact, "numbers": table, "correct_ids": right}

    def submission(self, read: Read, path: Path) -> None:
        said = [given.text if given else "" for given in read.given]
        rows = zip(read.questions, said, strict=True)
        write_jsonl(path, [{"question_id": question.id, "prediction": text} for question, text in rows])

    @classmethod
    def example(cls, folder: Path) -> Seedbench:
        options = {f"choice_{letter}": word for letter, word in zip("abcd", ["cat", "dog", "owl", "fox"], strict=True)}
        facts = []
        for n, (id, medium) in enumerate([("7", "image"), ("v3", "video"), ("8", "image")]):
            about: dict[str, Any] = {"question": "Which?", "answer": "ABC"[n], "data_type": medium}
            about["question_type_id"] = n + 1
            facts.append({**about, **options, "question_id": id, "data_id": f"{id}.png"})
            picture(folder / f"{id}.png", n)
        kinds = {"Scene Understanding": 1, "Action Recognition": 2, "Visual Reasoning": 3}
        write_json(folder / "SEED-Bench.json", {"questions": facts, "question_type": kinds})
        write_jsonl(folder / "bunny-seed-bench.jsonl", [])
        return cls(data=folder, profile="strict")


USE = Seedbench
