"""A study's recipe: what is crossed, under which budget, on which questions.

In: a YAML file. Out: a frozen `Study`, and the base recipe with a cell's changes. Unknown keys are errors with the
nearest known name. A selection is a curation of the base recipe's pool, cut to a share of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PrivateAttr, model_validator

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Block, Recipe, Section, check
from bunny.study.pollute import Pollution

CLUSTER = "cluster"
SAMPLE = "sample"
ONLY, WITHOUT = "only", "without"
BASE = "base"
"""The size of model that a study has which names none: the base recipe's."""


class Choice(Section):
    """One selection: what curates the pool, and what else of the base recipe is different."""

    steps: list[Block] = Field(default_factory=list)  # as in `curate.steps`; empty: the pool as it is
    preset: str | None = None  # a preset's steps, in place of `steps`
    whole: bool = False  # all that the steps leave: no share is drawn, whatever `shares` say
    shares: tuple[float, ...] = ()  # shares of its own, in place of the study's
    times: float = Field(1.0, gt=0, description="so many times the budget's steps")
    set: dict[str, Any] = Field(default_factory=dict)  # dotted changes of the base recipe, e.g. tune.data

    @model_validator(mode="after")
    def _one_way(self) -> Choice:
        if self.preset is not None and self.steps:
            raise ValueError("give `steps` or a `preset`")
        if self.whole and self.shares:
            raise ValueError("a `whole` selection draws no share: leave `shares` out")
        return self


class Ablation(Section):
    """Further selections made from one: each of its steps alone, and all but each."""

    of: str  # name of a selection
    alone: bool = True
    left_out: bool = True


class Budget(Section):
    """What every cell may spend."""

    steps: int = Field(gt=0)  # optimiser steps of the last training stage
    equal: Literal["steps", "compute"] = "steps"  # compute: what the curation took is taken off, as steps
    step_cpu_seconds: float | None = Field(None, gt=0)  # price of a step, for `compute`; `bunny study plan` measures it

    @model_validator(mode="after")
    def _priced(self) -> Budget:
        if self.equal == "compute" and self.step_cpu_seconds is None:
            raise ValueError(
                "`equal: compute` needs `step_cpu_seconds`: `bunny study plan` says what a step takes here"
            )
        return self


def _one_size() -> dict[str, dict[str, Any]]:
    return {BASE: {}}


class Study(Section):
    """The whole file."""

    name: str
    recipe: str  # the base recipe, seen from this file
    set: dict[str, Any] = Field(default_factory=dict)  # dotted changes of the base recipe, for all cells
    pollute: Pollution | None = None  # spoil the pool in known ways first
    selections: dict[str, Choice]
    ablate: Ablation | None = None
    shares: tuple[float, ...] = (0.25,)  # of the pool's rows
    seeds: tuple[int, ...] = (0, 1, 2)  # of curation, draw, rows and training
    sizes: dict[str, dict[str, Any]] = Field(default_factory=_one_size)  # of the model: name -> dotted changes
    budget: Budget
    tasks: list[Block]  # benchmarks; their questions do not depend on the cell's seed
    measure: Literal["accuracy", "ranking"] = "accuracy"  # what is tested; the other one is reported beside it
    against: tuple[str, ...] = ("random", "all")  # selections that the others are compared with
    max_new_tokens: int = Field(4, gt=0)
    batch_rows: int = Field(32, gt=0)
    keep_models: bool = False  # else a cell's weights go when its answers are there

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _fits(self) -> Study:
        if not self.selections or not self.seeds or not self.sizes or not self.tasks:
            raise ValueError("a study needs selections, seeds, sizes and tasks")
        named = [*self.against, *([self.ablate.of] if self.ablate else [])]
        for name in named:
            if name not in self.selections and (self.ablate is None or name not in self.choices()):
                raise ValueError(f"no selection is called `{name}`, {nearest(name, self.selections)}")
        for share in (*self.shares, *(one for choice in self.selections.values() for one in choice.shares)):
            if not 0 < share <= 1:
                raise ValueError(f"share {share:g}: must be above 0 and at most 1")
        return self

    @staticmethod
    def load(path: Path) -> Study:
        """The validated study. Raises UserError that names file, key and nearest known key."""
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: no such study", fix="see the files in `recipes/studies/`") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
        if not isinstance(tree, dict):
            raise UserError(f"{path}: a study is a mapping of settings", fix="start from a file in `recipes/studies/`")
        study = check(Study, tree, where=str(path))
        study._folder = path.resolve().parent
        return study

    def locate(self, path: str) -> Path:
        """A path written in the study, seen from the study's own folder."""
        return (self._folder / path).resolve()

    def base(self, changes: Mapping[str, Any]) -> Recipe:
        """The base recipe with the study's changes and these. Raises UserError."""
        told = {**self.set, **changes}
        return Recipe.load(self.locate(self.recipe), [f"{key}={_inline(value)}" for key, value in told.items()])

    def choices(self) -> dict[str, Choice]:
        """All selections, those of the ablation too, by name."""
        found = dict(self.selections)
        if self.ablate is not None and self.ablate.of in self.selections:
            of = self.selections[self.ablate.of]
            found |= _ablated(of, steps_of(of), self.ablate)
        return found


def steps_of(choice: Choice) -> list[Block]:
    """The steps: written out, or those of the preset. Raises UserError for an unknown preset."""
    from bunny.curate.plan import preset_steps

    return preset_steps(choice.preset) if choice.preset else list(choice.steps)


def _ablated(of: Choice, steps: Sequence[Block], how: Ablation) -> dict[str, Choice]:
    """Each step alone (behind the clustering before it, which drops nothing), and all but each."""
    labels = _labels(steps)
    found = {}
    for number, (label, step) in enumerate(zip(labels, steps, strict=True)):
        if step["use"] == CLUSTER:
            continue
        before = [one for one in steps[:number] if one["use"] == CLUSTER]
        rest = [one for place, one in enumerate(steps) if place != number]
        if how.alone:
            found[f"{ONLY} {label}"] = of.model_copy(update={"steps": [*before, step], "preset": None})
        if how.left_out:
            found[f"{WITHOUT} {label}"] = of.model_copy(update={"steps": rest, "preset": None})
    return found


def _labels(steps: Sequence[Block]) -> list[str]:
    """Names of the steps, a later one of a name with what it ranks by, or with its number."""
    names: list[str] = []
    for step in steps:
        name = str(step["use"]).rpartition(":")[2]
        name = f"{name} {step['by']}" if name == "band" and "by" in step else name
        names.append(name if name not in names else f"{name} {names.count(name) + 1}")
    return names


def _inline(value: Any) -> str:
    """A value as YAML in one line, as overrides are written."""
    return str(yaml.safe_dump(value, default_flow_style=True, width=10**6)).removesuffix("\n...\n").strip()
