"""The words around every question: where the picture stands, and the endings that the published evaluations use."""

from __future__ import annotations

from bunny.core.types import IMAGE_MARK, Sample, Turn

ONE_WORD = "\nAnswer the question using a single word or phrase."
OPTION_LETTER = "\nAnswer with the option's letter from the given choices directly."


def ask(sample: Sample, id: str, question: str, answer: str, source: str) -> Sample:
    """One question and its answer about the sample's pictures; the pictures come first. meta: of the sample."""
    marks = "\n".join([IMAGE_MARK] * len(sample.images))
    words = f"{marks}\n{question}" if question and marks else marks + question
    return Sample(id, sample.images, (Turn("user", words), Turn("assistant", answer)), source, sample.meta)


def article(word: str) -> str:
    """The indefinite article before a word, as evaluation's questions have it.

    >>> article("umbrella"), article("cat")
    ('an', 'a')
    """
    return "an" if word[:1].lower() in "aeiou" else "a"
