"""Lists of steps that others have published, or that this documentation recommends: a name in, `{use: …}` blocks out.

Each is a YAML file with `about` (one line), `embedder` (what the numbers were found with; for information) and `steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Block


@dataclass(frozen=True, slots=True)
class Preset:
    """about: what it is for, in one line. embedder: what its numbers belong to. text: the file, with its sources."""

    name: str
    about: str
    embedder: Mapping[str, Any]
    steps: tuple[Block, ...]
    text: str


def preset(name: str) -> list[Block]:
    """The steps of a preset. Raises UserError that names the nearest one.

    >>> [step["use"] for step in preset("datacomp-clip30")]
    ['band']
    """
    return [dict(step) for step in read_preset(name).steps]


def presets() -> dict[str, str]:
    """Name -> about line of every preset, by name."""
    return {name: read_preset(name).about for name in _names()}


def read_preset(name: str) -> Preset:
    """All there is to know about a preset. Raises UserError that names the nearest one."""
    if name not in _names():
        raise UserError(f"no preset is called `{name}`", fix=nearest(name, _names()))
    text = (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    return Preset(name, tree["about"], tree.get("embedder", {}), tuple(tree["steps"]), text)


def _names() -> list[str]:
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _folder() -> Path:
    return Path(__file__).parent
