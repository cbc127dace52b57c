"""What the pictures show, as words, and which other words may fairly be asked about them.

In: samples with `meta["words"]`, or with title, keywords, description, category and a telling id (a file name) that a
words file reads. Out: `Named`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bunny.core.errors import UserError
from bunny.core.types import Sample
from bunny.data.makers._maker import Maker
from bunny.data.words import WordList, load_words


@dataclass(frozen=True)
class Named:
    """Samples whose words are known. words: row-aligned, none empty. rules: relations between words, if there are."""

    samples: list[Sample]
    words: list[list[str]]
    rules: WordList | None

    def fair(self, word: str, at: int) -> bool:
        """Whether the picture of row `at` surely does not show `word`; meta["absent"] decides where it is given."""
        if (absent := self.samples[at].meta.get("absent")) is not None:
            return word in absent
        if self.rules is None or word not in self.rules.words:
            return word not in self.words[at]
        known = [other for other in self.words[at] if other in self.rules.words]
        return word not in self.words[at] and self.rules.may_ask_no(word, known)


class WordMaker(Maker):
    """A maker that asks about words."""

    words: str | None = None  # YAML words file (see `bunny.data.words`); not needed where samples carry meta["words"]
    folder: Path | None = None  # the recipe's folder, supplied by the program

    def name_all(self, samples: Sequence[Sample]) -> Named:
        """The samples that have words, with their words. Raises UserError if none has."""
        rules = self.rules()
        pairs = [(sample, words) for sample in samples if (words := _words(sample, rules))]
        if samples and not pairs:
            raise UserError("no picture has a known word", fix="set `words` to a words file or give meta['words']")
        return Named([sample for sample, _ in pairs], [words for _, words in pairs], rules)

    def rules(self) -> WordList | None:
        """What the words file says; None without one. Raises UserError if it cannot be read."""
        return _load((self.folder or Path()) / self.words) if self.words else None


def _load(path: Path) -> WordList:
    try:
        return load_words(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such words file", fix="check the maker's `words`") from None
    except ValueError as error:
        raise UserError(" ".join(f"{path}: {error}".split())) from None


def _words(sample: Sample, rules: WordList | None) -> list[str]:
    meta = sample.meta
    if meta.get("words") is not None:
        return [str(word) for word in meta["words"]]
    if rules is None:
        return []
    keywords = [str(word) for word in meta.get("keywords") or ()]
    title = str(meta.get("title") or sample.text)
    description, category = (str(meta.get(key) or "") for key in ("description", "category"))
    return rules.words_of(title, keywords, description, category, name=sample.id.rpartition("/")[2])
