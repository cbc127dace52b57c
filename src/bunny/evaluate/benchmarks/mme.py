"""MME: 14 tasks of perception and cognition, a yes and a no about every picture (Fu et al. 2023, arXiv:2306.13394).

In: `bunny_mme.jsonl` (prompts) and `MME_Benchmark_release_version/` (gold and pictures), or `Your_Results/` of the
official tool (gold only). Headline: perception, out of 2,000; cognition, out of 800, beside it. The original pairs
neighbouring lines of text files; the profile `bunny` repeats that, all others pair by picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bunny.core.errors import UserError
from bunny.core.types import EvalResult, Parsed, Question
from bunny.evaluate.answers import Given
from bunny.evaluate.files import jsonl_of, need, write_jsonl
from bunny.evaluate.official import yes_no
from bunny.evaluate.official.benchmark import WORD, DataFile, OfficialBenchmark, Read, ask
from bunny.evaluate.official.made_up import picture
from bunny.evaluate.official.mme_files import SUFFIXES, gold_of, id_of, key_of
from bunny.evaluate.official.mme_tables import COGNITION, PERCEPTION, file_pairs, id_pairs, table, with_intervals
from bunny.evaluate.parse import normalise
from bunny.evaluate.parse import yes_no as first_word

RELEASE, RESULTS = "MME_Benchmark_release_version", "Your_Results"
HOME = "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation"
READERS: dict[str, Callable[[str], str]] = {
    "bunny": yes_no.mme,
    "official": yes_no.mme,
    "strict": lambda text: first_word(text).value,
    "lmms_eval": yes_no.mme_lmms_eval,
    "vlmevalkit": yes_no.one_of_both,
}


class Mme(OfficialBenchmark):
    """2,374 questions about 1,187 pictures."""

    name: str = "mme"
    full: ClassVar[float] = 2000.0
    FILES: ClassVar = (
        DataFile(
            "bunny_mme.jsonl",
            "https://github.com/BAAI-DCAI/Bunny/tree/main/eval/mme",
            2374,
            "9f67707cb72d2a71df955d0dce84337f2f22eafe2ed473ca3e148c187ac360c5",
        ),
        DataFile(RELEASE, HOME, len(PERCEPTION) + len(COGNITION)),
    )
    RULES: ClassVar = {
        "bunny": "yes, else no, within the first four characters; neighbouring lines are a pair",
        "official": "yes, else no, within the first four characters; pairs by picture",
        "strict": "the first word, if it is yes or no",
        "lmms_eval": "as official, without surrounding space and full stops; y and n count",
        "vlmevalkit": "exactly one of the words yes and no occurs",
    }

    def load(self) -> list[Question]:
        gold = gold_of(self.file(RELEASE, RESULTS))
        if not self.has("bunny_mme.jsonl"):
            return [self._question(key, f"{key[2]}{WORD}", answer, "") for key, answer in gold.items()]
        questions = []
        for number, row in enumerate(jsonl_of(self.file("bunny_mme.jsonl")), 1):
            id, image, text = need(row, ("question_id", "image", "text"), f"{self.name}: question {number}")
            key = key_of(id, text)
            if key not in gold:
                raise UserError(
                    f"{self.name}: question {number}: no answer to `{key[2]}` in {RELEASE}/{key[0]}/{key[1]}.txt",
                    fix=f"get it again from {HOME}",
                )
            questions.append(self._question(key, text, gold[key], image))
        return questions

    def read(self, question: Question, text: str) -> str:
        return READERS[self.profile](text)

    def as_asked(self, question: Question, text: str) -> bool:
        return normalise(text) in ("yes", "no")

    def key(self, given: Given) -> str:
        return id_of(key_of(given.id, given.prompt))

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        right = [item.value == question.gold[0].lower() for question, item in zip(questions, parsed, strict=True)]
        return with_intervals(self.name, questions, parsed, right)

    def numbers(self, read: Read) -> dict[str, Any]:
        right = [item.value == q.gold[0].lower() for q, item in zip(read.questions, read.parsed, strict=True)]
        numbers = table(file_pairs(read) if self.profile == "bunny" else id_pairs(read, right))
        headline = {"mme_p": numbers["Perception"]["total"], "mme_c": numbers["Cognition"]["total"]}
        return {"headline": headline, "numbers": numbers}

    @classmethod
    def example(cls, folder: Path) -> Mme:
        rows = []
        for n, task in enumerate((*PERCEPTION, *COGNITION)):
            image = picture(folder / RELEASE / task / f"{n}.png", n)
            asked = [(f"Is it {word}? Please answer yes or no.", word == "red") for word in ("red", "blue")]
            lines = [f"{text}\t{'Yes' if yes else 'No'}\n" for text, yes in asked]
            image.with_suffix(".txt").write_text("".join(lines), encoding="utf-8")
            id = f"{task}/{n}.png"
            rows += [
                {"question_id": id, "image": id, "text": text[: -len(SUFFIXES[0]) - 1] + WORD} for text, _ in asked
            ]
        write_jsonl(folder / "bunny_mme.jsonl", rows)
        return cls(data=folder, profile="strict")

    def _question(self, key: tuple[str, str, str], text: str, gold: str, image: str) -> Question:
        folder = self.folder() / RELEASE / key[0]
        name = Path(image).name or f"{key[1]}.jpg"
        path = folder / "images" / name if (folder / "images").is_dir() else folder / name
        return ask(id_of(key), text, path, [gold.lower()], f"{key[0]}/{key[1]}", task=key[0])


USE = Mme
