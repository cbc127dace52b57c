"""What the benchmarks on named pictures share: which picture shows which thing, what it is called, what is balanced.

In: a Parquet file of pictures with `words` (surely there) and `absent` (surely not). Out: pictures with one thing each,
sets of them that may stand side by side, and a reader of answers from a closed list.

Sets are balanced: within one, the same words are asked of pictures for which different answers are right, so that a
model which does not look is at chance. `trained` names the words that the training knew: `seen` and `unseen` things are
scored apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.recipe import Section
from bunny.core.seeds import stream
from bunny.core.types import Answer, EvalResult, Parsed, Question
from bunny.evaluate.pairing import read_words
from bunny.evaluate.parse import normalise
from bunny.evaluate.scoring import mean_score

NAMES = Path(__file__).with_name("names.yaml")


@dataclass(frozen=True)
class Thing:
    """A picture of one thing. row: in the file; word: the narrowest one; absent: what it surely does not show."""

    id: str
    row: int
    word: str
    absent: frozenset[str]

    def beside(self, other: Thing) -> bool:
        """Whether neither shows what the other is called after."""
        return self.word in other.absent and other.word in self.absent


class HeldOut(Section):
    """Which things a benchmark may ask about, by whether the training knew their names."""

    folder: Path = Path()  # where the recipe lies
    trained: Path | None = None  # words the training knew: words file (`words:`) or YAML list; relative to `folder`
    split: Literal["all", "seen", "unseen"] = "all"  # with `trained`: only things (not) named in training

    def seen(self, *words: str) -> bool:
        """Whether the training knew all these words; without `trained` all count as known."""
        return self.trained is None or set(words) <= _trained(self.folder / self.trained)

    def in_split(self, word: str) -> bool:
        """Whether the word is on the side that is asked about. Raises UserError for a side without `trained`."""
        if self.split != "all" and self.trained is None:
            raise UserError(
                f"split: {self.split}: seen by whom?", fix="set `trained` to the words file of the training"
            )
        return self.split == "all" or (self.split == "seen") == self.seen(word)


class NamedPictures(HeldOut):
    """Settings and scoring that counting, position, colour, choice and reading share."""

    name: str = ""
    path: Path  # Parquet file of named pictures; relative to `folder`
    language: Literal["en", "zh"] = "en"  # of the questions; zh asks only about words that `names.yaml` names
    sets: int = Field(20, gt=0, description="balanced sets of questions, at most")
    words: tuple[str, ...] = ()  # ask only about these; default: all
    seed: int = 0  # which pictures are drawn

    @property
    def source(self) -> Path:
        """The Parquet file."""
        return self.folder / self.path

    def things(self) -> list[Thing]:
        """The pictures that can be asked about: at random one of every word, then a second one, and so on.

        So the first sets are about as many words as there are. Raises UserError if there is none.
        """
        known = read_words(self.source, {}, ())
        broader = _broader(known.present)
        found = []
        for row, (id, words, absent) in enumerate(zip(known.ids, known.present, known.absent, strict=True)):
            narrow = [word for word in words if not any(word in broader[other] for other in words)]
            if len(narrow) == 1 and self.asks(narrow[0]):
                found.append(Thing(id, row, narrow[0], absent))
        if not found:
            raise UserError(
                f"{self.source}: no picture of one nameable thing",
                fix="check its `words`, and the settings `language`, `words` and `split`",
            )
        turn: dict[str, int] = defaultdict(int)
        order = []
        for at in self.rng("things").permutation(len(found)).tolist():
            order.append((turn[found[at].word], found[at]))
            turn[found[at].word] += 1
        return [thing for _, thing in sorted(order, key=lambda each: each[0])]

    def asks(self, word: str) -> bool:
        """Whether the settings let the word be asked about."""
        wanted = not self.words or word in self.words
        return wanted and self.in_split(word) and (self.language == "en" or word in chinese())

    def called(self, word: str) -> str:
        """The word's name in the language of the questions."""
        return word if self.language == "en" else chinese()[word]

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers of this benchmark's own."""
        return stream(f"evaluate.{type(self).__name__}.{purpose}", self.seed)

    def meta(self, category: str, *words: str, **more: Any) -> Mapping[str, Any]:
        """What a question carries: the sub-score it counts for, whether all its things were seen in training, and what
        the reader needs. No `kind`: the majority baseline knows the kind, and a category may tell the answer."""
        return MappingProxyType({"category": category, "seen": self.seen(*words), **more})

    def parse(self, question: Question, answer: Answer) -> Parsed:
        """The one answer of the closed list that is named."""
        return one_of(answer.text, question.meta["forms"])

    def score(self, questions: Sequence[Question], parsed: Sequence[Parsed]) -> EvalResult:
        """Accuracy in per cent; by category, and with `trained` for seen and unseen things."""
        right = [item.value == question.gold[0] for question, item in zip(questions, parsed, strict=True)]
        return mean_score(self.name, questions, parsed, right, self.parts(questions))

    def parts(self, questions: Sequence[Question]) -> dict[str, list[bool]]:
        """The questions of each sub-score."""
        names = [str(question.meta["category"]) for question in questions]
        parts = {name: [each == name for each in names] for name in sorted(set(names))}
        if self.trained is not None:
            seen = [bool(question.meta["seen"]) for question in questions]
            parts |= {"seen": seen, "unseen": [not each for each in seen]}
        return {name: rows for name, rows in parts.items() if any(rows) and not (len(parts) == 1 and all(rows))}


def together(things: Sequence[Thing], size: int, sets: int) -> list[list[Thing]]:
    """Sets of `size` different things, each picture at most once, none showing what another is called after."""
    waiting = list(things)
    found: list[list[Thing]] = []
    while len(waiting) >= size and len(found) < sets:
        first, *others = waiting
        chosen = [first]
        for other in others:
            if len(chosen) < size and all(other.word != one.word and other.beside(one) for one in chosen):
                chosen.append(other)
        waiting = [thing for thing in waiting if thing not in (chosen if len(chosen) == size else [first])]
        found += [chosen] if len(chosen) == size else []
    if not found:
        raise UserError(f"no {size} pictures of different things", fix="give more pictures with `words` and `absent`")
    return found


def one_of(text: str, forms: Mapping[str, str]) -> Parsed:
    """The value of the form that the text is (`ok`), or of the only one that it names (`fallback`). Never raises.

    A form inside a longer named one does not count ("ball" in Chinese stands inside "balloon").

    >>> one_of("On the left.", {"left": "left", "right": "right"})
    Parsed(value='left', status='fallback')
    """
    plain = normalise(text)
    if not plain:
        return Parsed("", "empty")
    if plain in forms:
        return Parsed(forms[plain])
    named = [form for form in forms if (f" {form} " in f" {plain} " if form.isascii() else form in plain)]
    values = {forms[form] for form in named if not any(form != other and form in other for other in named)}
    return Parsed(values.pop(), "fallback") if len(values) == 1 else Parsed("", "malformed")


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}"


@cache
def chinese() -> dict[str, str]:
    """English word -> Chinese name."""
    names: dict[str, str] = yaml.safe_load(NAMES.read_text(encoding="utf-8"))["zh"]
    return names


@cache
def _trained(path: Path) -> frozenset[str]:
    """The words of a words file or of a plain list. Raises UserError if it is neither."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}", fix="check the benchmark's `trained`") from None
    words = tree.get("words") if isinstance(tree, dict) else tree
    if not isinstance(words, dict | list):
        raise UserError(f"{path}: no list of words", fix="give a words file with `words:`, or a YAML list")
    return frozenset(map(str, words))


def _broader(present: Sequence[frozenset[str]]) -> dict[str, frozenset[str]]:
    """Word -> words that stand with it on every picture: those that are true of all such things."""
    shared: dict[str, frozenset[str]] = {}
    for words in present:
        for word in words:
            shared[word] = shared.get(word, words) & words
    return {
        word: frozenset(other for other in others if other != word and word not in shared[other])
        for word, others in shared.items()
    }
