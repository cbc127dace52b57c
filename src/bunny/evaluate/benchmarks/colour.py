"""The colour of a thing, where there is no doubt about it.

In: a Parquet file of named pictures. Out: questions about pictures nearly all of whose coloured pixels have one of six
colours, with room between the hues (`evaluate/colours.py`). Sets have one picture of each colour that is asked, so
that saying always the same colour is right once a set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Question
from bunny.evaluate.colours import CHINESE, HUES, colour_of
from bunny.evaluate.made_up import named_pictures
from bunny.evaluate.named import NamedPictures, Thing
from bunny.evaluate.sheets import small

FEWEST = 2  # colours of a set
FORMS = {form: name for name, sign in CHINESE.items() for form in (name, sign, f"{sign}色", f"{sign}色的")}


class Colour(NamedPictures):
    """One question a colour in each set, about the colours that most pictures have."""

    name: str = "colour"
    colours: int = Field(3, ge=FEWEST, le=len(HUES), description="the so many colours that have most pictures")

    def questions(self) -> Sequence[Question]:
        """The questions, set by set."""
        found = self._coloured()
        if len(found) < FEWEST:
            raise UserError(f"{self.source}: fewer than {FEWEST} sure colours", fix="give more pictures")
        most = sorted(found, key=lambda name: (-len(found[name]), name))[: self.colours]
        sets = min(self.sets, *(len(found[name]) for name in most))
        chosen = {name: found[name][:sets] for name in most}
        return [self._question(name, some[turn]) for turn in range(sets) for name, some in sorted(chosen.items())]

    def _coloured(self) -> dict[str, list[Thing]]:
        import pyarrow.parquet as pq

        encoded = pq.read_table(self.source, columns=["image"]).column("image")
        found: dict[str, list[Thing]] = defaultdict(list)
        for thing in self.things():
            name = colour_of(small(encoded[thing.row].as_py(), f"{self.source}#{thing.row}"))
            if name is not None:
                found[name].append(thing)
        return found

    def _question(self, colour: str, thing: Thing) -> Question:
        if self.language == "zh":
            text = f"{self.called(thing.word)}是什么颜色？请只回答颜色。"
        else:
            text = f"What colour is the {thing.word}? Answer with one word."
        image = ImageRef(str(self.source), str(thing.row))
        return Question(thing.id, text, (image,), (colour,), thing.id, self.meta(colour, thing.word, forms=FORMS))

    @classmethod
    def example(cls, folder: Path) -> Colour:
        """Made-up pictures, for the contract suite."""
        return cls(path=named_pictures(folder), sets=3)


USE = Colour
