"""Object words: which nameable things a captioned picture shows, and what may be asked about it.

In: the words file (YAML, one rule a word) and the text that came with a picture.
Out: the words that are present, and whether a yes/no question with the answer "no" would be fair.
It reads text only. It does not know what the pixels show: a wrong title gives a wrong word.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_GAP = re.compile(r"[^a-z]+")


def _plain(text: str) -> str:
    """Lower-case words with a space before and after each, so that `in` matches whole words only."""
    return f" {_GAP.sub(' ', text.lower()).strip()} "


Form = Annotated[str, AfterValidator(_plain)]


class WordRule(BaseModel):
    """How one word is found, and its relations to other words."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    also: tuple[Form, ...] = ()  # other forms that count as the word: plurals, kinds, other languages
    folders: tuple[str, ...] = ()  # a picture filed under one of these shows the word
    unless: tuple[Form, ...] = Field(default=(), alias="except")  # forms that rule the word out
    implies: tuple[str, ...] = ()  # broader words, true as well
    confusable: tuple[str, ...] = ()  # never a fair "no" beside this word; holds both ways


class WordList(BaseModel):
    """The rules of all words, in the order of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: dict[str, WordRule]
    ignore_titles: tuple[Form, ...] = ()  # a title with one of these names a series, not the picture
    ignore_folders: tuple[str, ...] = ()  # pictures filed here get no words

    def words_of(
        self, title: str, keywords: Sequence[str], description: str, category: str, name: str = ""
    ) -> list[str]:
        """The words that a picture's text says it shows, broader words included, in the order of the file.

        A form of several words must stand in one field (the title, one keyword, the file name). `category` is the
        folder, matched from its start; `name` the file name without its ending, often the only truth beside the
        title of a series. The description never adds a word, it can only rule one out: descriptions tell who made
        a drawing, or what for, more often than what it shows.

        >>> words = load_words(Path("demo/words.yaml"))
        >>> words.words_of("Two ducks", ["pond"], "", "animals/birds")
        ['animal', 'bird']
        """
        if _filed_under(self.ignore_folders, category):
            return []
        shown = [_plain(text) for text in (title, *keywords, name)]
        if _any_form(self.ignore_titles, shown[:1]):
            shown = shown[1:]
        told = [*shown, _plain(description)]
        found = {
            word
            for word, rule in self.words.items()
            if (_any_form((_plain(word), *rule.also), shown) or _filed_under(rule.folders, category))
            and not _any_form(rule.unless, told)
        }
        found |= {broad for word in found for broad in self.words[word].implies}
        return [word for word in self.words if word in found]

    def may_ask_no(self, word: str, present_words: Collection[str]) -> bool:
        """Whether "is there a WORD?" is surely answered "no" for a picture with these words.

        Never fair: a picture without any word (nothing is known about it), a word that is present, a word that is
        confusable with a present one, and a narrower word where only the broad one is known
        (an `animal` of unknown kind may be a `bird`; one that is known to be a `dog` is not).
        """
        if not present_words or word in present_words:
            return False
        if any(self._confusable(word, other) for other in present_words):
            return False
        kinds_known = {broad for other in present_words for broad in self.words[other].implies}
        return all(broad not in present_words or broad in kinds_known for broad in self.words[word].implies)

    def _confusable(self, one: str, other: str) -> bool:
        return other in self.words[one].confusable or one in self.words[other].confusable


def load_words(path: Path) -> WordList:
    """The word list of a YAML file. Raises ValueError when a rule names a word that has no rule of its own."""
    words = WordList.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    for word, rule in words.words.items():
        strangers = {*rule.implies, *rule.confusable} - words.words.keys()
        if strangers:
            raise ValueError(f"{path}: '{word}' names {sorted(strangers)}; give each of them a rule or drop the name")
    return words


def forms_in(rules: WordList, words: Collection[str], texts: Sequence[str]) -> bool:
    """Whether any form of these words stands in one of the texts, or a text names a folder of theirs; nothing rules a
    form out here, so this finds more than `words_of`."""
    plain = [_plain(text) for text in texts]
    for word in words:
        rule = rules.words[word]
        if _any_form((_plain(word), *rule.also), plain) or any(_filed_under(rule.folders, text) for text in texts):
            return True
    return False


def _filed_under(folders: Sequence[str], category: str) -> bool:
    return any(category == folder or category.startswith(folder + "/") for folder in folders)


def _any_form(forms: Sequence[str], fields: Sequence[str]) -> bool:
    """Whether one of the forms stands in one of the fields; both already plain."""
    return any(form in field for form in forms for field in fields)
