"""A recipe's `steps` in, checked step objects with names out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError, nearest
from bunny.core.protocols import Step
from bunny.core.recipe import Block, make
from bunny.curate.presets import preset


@dataclass(frozen=True, slots=True)
class Planned:
    """label: the step's file name, `band_2` for the second band. block: its settings as written. step: built."""

    label: str
    block: Block
    step: Step


def plan(blocks: Sequence[Block], folder: Path | None = None) -> tuple[Planned, ...]:
    """The steps in order. Raises UserError that names the step and key at fault.

    folder: where relative paths are seen from; the block of a step that has such paths keeps it, for later runs.
    """
    count: Counter[str] = Counter()
    planned = []
    for number, block in enumerate(blocks, start=1):
        context = {} if folder is None else {"folder": folder.absolute()}
        step = make(dict(block), "bunny.curate.steps", where=f"curate.steps, number {number}", **context)
        name = str(block["use"]).rpartition(":")[2]
        count[name] += 1
        label = name if count[name] == 1 else f"{name}_{count[name]}"
        if not isinstance(step, Step):
            raise UserError(f"{block['use']} is no curation step", fix="give it `decide(pool, rng) -> Decision`")
        planned.append(Planned(label, {**block, **_seen_from(step, context)}, step))
    return tuple(planned)


def _seen_from(step: Step, context: Mapping[str, Path]) -> Block:
    """What the block of a step with relative paths must say too."""
    return {key: str(getattr(step, key)) for key in context if key in getattr(type(step), "model_fields", ())}


def preset_steps(name: str) -> list[Block]:
    """The steps of a preset, a YAML file of `curate/presets`. Raises UserError that names the nearest one."""
    return preset(name)


def changed(planned: Sequence[Planned], overrides: Mapping[str, Mapping[str, Any]]) -> tuple[Planned, ...]:
    """The same steps with some settings replaced: label -> {field: value}."""
    labels = [one.label for one in planned]
    for label in overrides:
        if label not in labels:
            raise UserError(f"no step is called `{label}`", fix=nearest(label, labels))
    return plan([{**one.block, **overrides.get(one.label, {})} for one in planned])
