"""Lists of patterns in YAML, each with its name and examples: strings in, the first kind that each is of out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from bunny.curate.texts import arrow


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of text. pattern: RE2, found anywhere, upper and lower case alike (\\b and \\d know ASCII only).
    junk, fine: texts it is for, and texts it must leave alone; the tests try them."""

    name: str
    pattern: str
    junk: tuple[Any, ...]
    fine: tuple[Any, ...]


@cache
def read_kinds(path: Path) -> list[Kind]:
    """The entries of one of our lists, in order."""
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [Kind(one["name"], one["pattern"], tuple(one["junk"]), tuple(one["fine"])) for one in entries]


def first_kind(texts: list[str], kinds: Sequence[Kind], before: str) -> npt.NDArray[np.object_]:
    """(n,) str: `before` and the name of the first kind that a text is of; empty where it is of none."""
    import pyarrow.compute as pc

    written = arrow(texts)
    names = np.full(len(texts), "", dtype=object)
    for kind in kinds:
        found = pc.match_substring_regex(written, kind.pattern, ignore_case=True).to_numpy(zero_copy_only=False)
        names[found & (names == "")] = before + kind.name
    return names
