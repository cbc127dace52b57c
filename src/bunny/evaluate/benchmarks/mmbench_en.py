"""MMBench in English: 20 abilities, every question asked once per order of its choices (Liu et al. 2023, 2307.06281).

In: `MMBench_DEV_EN_legacy.tsv` (or `…TEST…`, which has no gold: an Excel file is written for the server), pictures
inside. Headline: circular accuracy. The original has no scorer, the server's matching without its language model stands
for it. The table is read as text, so that a choice "None" or "NA" is a choice; the original would cut it off.
"""

from __future__ import annotations

import csv
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bunny.core.errors import UserError
from bunny.core.types import EvalResult, Parsed, Question
from bunny.evaluate.answers import Given
from bunny.evaluate.files import need, table_of, write_sheet
from bunny.evaluate.official import letters
from bunny.evaluate.official.benchmark import LETTER, DataFile, OfficialBenchmark, Read, ask
from bunny.evaluate.official.circular import all_passes, table, with_intervals
from bunny.evaluate.official.made_up import picture_base64
from bunny.evaluate.official.table_pictures import picture_path, write_pictures
from bunny.evaluate.parse import choice

HOME = "https://github.com/open-compass/MMBench (legacy links)"
NOT_SUBMITTED = ("hint", "category", "source", "image", "comment", "l2-category")
READERS: dict[str, Callable[[str, Mapping[str, str]], str]] = {
    **dict.fromkeys(("bunny", "official", "vlmevalkit"), letters.vlmevalkit),
    "strict": lambda text, options: choice(text, "".join(options)).value,
    "lmms_eval": letters.lmms_eval,
}


class MmbenchEn(OfficialBenchmark):
    """4,329 rows (dev), 1,164 questions."""

    name: str = "mmbench_en"
    LANGUAGE: ClassVar[str] = "EN"
    SUFFIX: ClassVar[str] = LETTER
    FILES: ClassVar = (DataFile("MMBench_DEV_EN_legacy.tsv", HOME, 4329),)
    RULES: ClassVar = {
        **dict.fromkeys(
            ("bunny", "official", "vlmevalkit"),
            "the only letter near the end, else after 'answer is', else the choice's words; no language model",
        ),
        "strict": "the letter, alone or first; or the only letter that stands alone",
        "lmms_eval": "a letter with or without marks, else the choice's words, else the likeliest place",
    }

    def load(self) -> list[Question]:
        path, questions = self._table(), []
        for number, row in enumerate(table_of(path), 2):
            where = f"{path}: row {number}"
            index, text, _ = need(row, ("index", "question", "image"), where)
            if not index.isdecimal():
                raise UserError(f"{where}: index `{index}` is no number", fix=f"get the file again from {HOME}")
            options = {letter: row[letter] for letter in string.ascii_uppercase if row.get(letter, "").strip()}
            hint = row.get("hint", "")
            shown = "".join(f"\n{letter}. {option}" for letter, option in options.items())
            prompt = (f"{hint}\n" if hint.lower() not in ("", "nan", "none") else "") + text + shown + self.SUFFIX
            first = str(int(index) % 1_000_000)
            meta = {"options": options, "question": first, "first": index == first, "category": row.get("category", "")}
            meta |= {"l2": row.get("l2-category", ""), "split": row.get("split", "")}
            gold = [row["answer"]] if row.get("answer") else []
            questions.append(ask(index, prompt, picture_path(self.folder(), row["image"]), gold, first, **meta))
        return questions

    def read(self, question: Question, text: str) -> str:
        return READERS[self.profile](text, question.meta["options"])

    def key(self, given: Given) -> str:
        turn = str(given.row.get("round_id", 0))
        return given.id if turn == "0" else f"{given.id} (round {turn})"

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        return with_intervals(super().score(questions, parsed), questions)

    def numbers(self, read: Read) -> dict[str, Any]:
        right = [bool(self.credit(*pair)) for pair in zip(read.questions, read.parsed, strict=True)]
        circular, vanilla = table(read, right, every_pass=True), table(read, right, every_pass=False)
        passes = all_passes(read.questions, right)
        values = {"circular": circular.get("Overall", 0.0), "vanilla": vanilla.get("Overall", 0.0)}
        return {
            "headline": {f"{self.name}_{kind}": 100 * float(str(value)) for kind, value in values.items()},
            "numbers": circular,
            "vanilla_first_pass_only": vanilla,
            "extracted": {q.id: item.value or "Z" for q, item in zip(read.questions, read.parsed, strict=True)},
            "hit_ids": sorted(int(read.questions[row].id) for row, hit in passes.items() if hit),
        }

    def prepare(self) -> None:
        path = self._table()
        write_pictures(self.folder(), (row["image"] for row in table_of(path)), str(path))

    def submission(self, read: Read, path: Path) -> None:
        said = {question.id: given.text for question, given in zip(read.questions, read.given, strict=True) if given}
        rows = []
        for row in table_of(self._table()):
            cells = [(name, cell) for name, cell in row.items() if name not in NOT_SUBMITTED]
            rows.append(dict([*cells[:6], ("prediction", said.get(str(row["index"]), "")), *cells[6:]]))
        write_sheet(path, rows)

    @classmethod
    def example(cls, folder: Path) -> MmbenchEn:
        names = ["index", "question", "hint", "A", "B", "answer", "category", "image", "l2-category", "split"]
        rows = []
        for n, (one, other) in enumerate([("cat", "None"), ("owl", "NA"), ("red", "nan")]):
            for turn in (0, 1):
                choices = [one, other] if turn == 0 else [other, one]
                tail = ["BA"[turn], "ocr", picture_base64(n), "coarse_perception", "dev"]
                rows.append([n + 241 + turn * 1_000_000, "Which?", "", *choices, *tail])
        with (folder / f"MMBench_DEV_{cls.LANGUAGE}_legacy.tsv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t").writerows([names, *rows])
        return cls(data=folder, profile="strict")

    def _table(self) -> Path:
        return self.file(*(f"MMBench_{split}_{self.LANGUAGE}_legacy.tsv" for split in ("DEV", "TEST")))


USE = MmbenchEn
