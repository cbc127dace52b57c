"""Questions about plain shapes: the official training split of the `easy-vqa` package.

In: nothing but the package (its pictures lie inside it). Out: single-turn conversations `easy_vqa/{picture}/q{n}`, the
questions of one picture after one another. The test split is evaluation's and is never read here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Sample
from bunny.data.makers._maker import Maker
from bunny.data.makers._prompts import ONE_WORD, ask


class EasyVqa(Maker):
    """`{use: easy_vqa, pictures: 1000, per_picture: 8}`"""

    pictures: int | None = Field(None, gt=0, description="pictures drawn; default: all 4,000")
    per_picture: int | None = Field(None, gt=0, description="questions drawn for each; default: all, about 9.7")
    suffix: str = ONE_WORD

    def make(self, samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
        """The split's questions by picture number; `samples` are not looked at. UserError without the package."""
        try:
            from easy_vqa import get_train_image_paths, get_train_questions
        except ModuleNotFoundError:
            raise UserError("easy_vqa needs the package easy-vqa", fix="pip install bunny-vlm[demo]") from None
        asked: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for question, answer, picture in zip(*get_train_questions(), strict=True):
            asked[picture].append((question, answer))
        paths = get_train_image_paths()
        for picture in _draw(sorted(asked), self.pictures, rng):
            base = Sample(f"easy_vqa/{picture}", (ImageRef(paths[picture]),), ())
            for number in _draw(range(len(asked[picture])), self.per_picture, rng):
                question, answer = asked[picture][number]
                yield ask(base, f"{base.id}/q{number}", question + self.suffix, answer, "easy_vqa")


def _draw(items: Sequence[int], count: int | None, rng: np.random.Generator) -> list[int]:
    """All items, or `count` of them drawn without replacement, in their order."""
    if count is None or count >= len(items):
        return list(items)
    return sorted(rng.choice(items, size=count, replace=False).tolist())


USE = EasyVqa
