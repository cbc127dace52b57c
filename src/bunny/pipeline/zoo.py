"""The model zoo: recipes that come with Bunny, and what they download.

In: the files of `recipes/zoo`, in a clone or in the installed package. Out: names, a recipe's path by its name, and
what `bunny zoo` shows. Nothing here loads a model: parameters were counted when `backbones.yaml` was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import LoraSection, Recipe, Section, StageSection, check

if TYPE_CHECKING:
    from bunny.train.shape import Shape

BACKBONES = "backbones.yaml"
SHOWN = ("mme_p", "mmbench_test", "mmmu_val", "pope")
"""Scores that the list shows; `bunny zoo NAME` shows all."""


class Backbone(Section):
    """A language model or vision tower of the zoo; see the head of `backbones.yaml`."""

    licence: str
    download_gb: float
    source: str
    download: str = ""  # where the weights are, if not in the repository of that name
    verified: bool = True
    note: str = ""
    config: dict[str, Any]
    parameters: int
    adapter_sides: int = 0


class Backbones(Section):
    """All of them, by their names in the recipes."""

    language_models: dict[str, Backbone]
    vision_towers: dict[str, Backbone]


@dataclass(frozen=True, slots=True)
class Entry:
    """A recipe of the zoo with its two backbones."""

    recipe: Recipe
    language_model: Backbone
    vision_tower: Backbone

    @property
    def stages(self) -> dict[str, StageSection]:
        """Its training stages by name."""
        found = {"align": self.recipe.align, "tune": self.recipe.tune, "second": self.recipe.second}
        return {name: section for name, section in found.items() if section is not None}

    @property
    def shape(self) -> Shape:
        """The sizes that time and memory depend on."""
        from bunny.train.shape import shape_from

        model, text, vision = self.recipe.model, self.language_model, self.vision_tower
        return shape_from(
            text.config,
            vision.config,
            projector=model.projector,
            scales=model.s2_scales,
            parameters=(text.parameters, vision.parameters),
        )


def folder() -> Path:
    """The zoo's files: in the clone this package runs from, else in the installed package."""
    import bunny

    package = Path(bunny.__file__).resolve().parent
    for root in (package.parents[1], package):
        if (root / "recipes" / "zoo" / BACKBONES).is_file():
            return root / "recipes" / "zoo"
    raise UserError("the recipes of the zoo are not installed", fix="install Bunny again: pip install bunny-vlm")


def names() -> list[str]:
    """All recipes of the zoo: their file names."""
    return sorted(path.stem for path in folder().glob("*.yaml") if path.name != BACKBONES)


def path_of(name: str) -> Path:
    """The file of a recipe. Raises UserError that names the nearest one."""
    if name not in names():
        raise UserError(
            f"no recipe of the zoo is called `{name}`", fix=f"{nearest(name, names())} `bunny zoo` lists all"
        )
    return folder() / f"{name}.yaml"


def load(name: str, overrides: Sequence[str] = (), fast: bool = False) -> Recipe:
    """A recipe by its name, at home in the working folder: its data are looked for there, not beside the recipe."""
    recipe = Recipe.load(path_of(name), overrides, fast)
    recipe._folder = Path.cwd()
    return recipe


def backbones() -> Backbones:
    """What `backbones.yaml` says."""
    path = folder() / BACKBONES
    return check(Backbones, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


def entry(name: str, known: Backbones | None = None) -> Entry:
    """A recipe by its name, with its backbones. Raises UserError if one of them is not in `backbones.yaml`."""
    recipe, known = load(name), known or backbones()
    model = recipe.model
    return Entry(
        recipe,
        _backbone(model.language_model, known.language_models, name),
        _backbone(model.vision_tower, known.vision_towers, name),
    )


def _backbone(wanted: str, known: Mapping[str, Backbone], name: str) -> Backbone:
    if wanted not in known:
        raise UserError(f"{name}: {BACKBONES} does not know `{wanted}`", fix=nearest(wanted, known))
    return known[wanted]


def summaries() -> list[dict[str, Any]]:
    """One row per recipe: parts, parameters, a few published scores, GB to run, train and download.

    Those with published scores come first, each group from small to large.
    """
    known = backbones()
    rows = [summary(entry(name, known)) for name in names()]
    return sorted(rows, key=lambda row: (not any(row["scores"].values()), row["parameters"], row["name"]))


def summary(item: Entry) -> dict[str, Any]:
    """A row of the list. Memory is an estimate, see `train.cost`; figures nobody published are None."""
    from bunny.train.cost import bytes_to_run

    recipe, shape = item.recipe, item.shape
    scores = recipe.card.scores if recipe.card else {}
    return {
        "name": recipe.name,
        "language_model": recipe.model.language_model,
        "vision_tower": recipe.model.vision_tower,
        "parameters": shape.parameters,
        "scores": {key: scores.get(key) for key in SHOWN},
        "run_gb": _gb(bytes_to_run(shape)),
        "align_gb": _gb(_to_train(shape, [item.stages["align"]])),
        "lora_gb": _gb(_to_train(shape, _tunings(item, "lora"))),
        "full_gb": _gb(_to_train(shape, _tunings(item, "full"))),
        "download_gb": round(item.language_model.download_gb + item.vision_tower.download_gb, 1),
    }


def _to_train(shape: Shape, sections: Sequence[StageSection]) -> float:
    """Bytes on one GPU for a row of `max_length` tokens at a time, activations recomputed: the most of the stages."""
    from bunny.train.cost import bytes_of_stage

    return max(
        bytes_of_stage(shape, section, section.max_length, pictures=1, checkpointing="full").total
        for section in sections
    )


def _tunings(item: Entry, way: str) -> list[StageSection]:
    """The recipe's tuning stages, as they were if the language model learnt that way."""
    stages = [section for name, section in item.stages.items() if name != "align"]
    return [section.model_copy(update={"language_model": way}) for section in stages]


def details(name: str) -> dict[str, Any]:
    """Everything of one recipe: card, all scores, downloads, stages, memory, commands."""
    item = entry(name)
    recipe, row = item.recipe, summary(item)
    card = recipe.card
    return {
        "name": name,
        "title": card.title if card else name,
        "note": card.note if card else "",
        "source": card.source if card else "",
        "scores": dict(card.scores) if card else {},
        "recipe": str(path_of(name)),
        "parameters": row["parameters"],
        "template": recipe.model.template,
        "s2_scales": list(recipe.model.s2_scales),
        "download": [
            _download(recipe.model.language_model, item.language_model),
            _download(recipe.model.vision_tower, item.vision_tower),
        ],
        "memory_gb": {key.removesuffix("_gb"): row[key] for key in ("run_gb", "align_gb", "lora_gb", "full_gb")},
        "data": [_data_set(name) for name in _data_names(item)],
        "stages": {stage: _stage(section) for stage, section in item.stages.items()},
        "merge": recipe.merge.model_dump(mode="json") if recipe.merge else None,
        "commands": _commands(item),
    }


def _download(name: str, backbone: Backbone) -> dict[str, Any]:
    return {
        "name": name,
        "from": backbone.download or f"https://huggingface.co/{name}",
        "gb": backbone.download_gb,
        "parameters": backbone.parameters,
        "licence": backbone.licence,
        "config": backbone.source + ("" if backbone.verified else " (not verified)"),
        "note": backbone.note,
    }


def _stage(section: StageSection) -> dict[str, Any]:
    """What a reader wants to know of a stage in a few words."""
    lora: LoraSection | None = section.lora if section.language_model == "lora" else None
    return {
        "data": [str(block.get("name", block.get("use"))) for block in section.data],
        "language_model": f"lora r {lora.r}, alpha {lora.alpha}" if lora else section.language_model,
        "vision_tower": section.vision_tower,
        "learning_rate": section.learning_rate,
        "projector_learning_rate": section.projector_learning_rate or section.learning_rate,
        "rows_per_step": section.rows_per_step,
        "max_length": section.max_length,
    }


def _data_names(item: Entry) -> list[str]:
    """The published data sets that its stages learn from, in order, each once."""
    blocks = [block for section in item.stages.values() for block in section.data if block["use"] == "published"]
    return list(dict.fromkeys(str(block["name"]) for block in blocks))


def _data_set(name: str) -> dict[str, Any]:
    """What a published data set takes to download."""
    from bunny.data.published_sets import published

    chosen = published(name)
    return {
        "name": name,
        "from": f"https://huggingface.co/datasets/{chosen.hub}",
        "files": {file.path: file.size for file in chosen.files},
        "pictures": chosen.archives,
    }


def _commands(item: Entry) -> list[str]:
    """What to type, in order."""
    name = item.recipe.name
    checks = [f"bunny data check {one}" for one in _data_names(item)]
    return [*checks, f"bunny train {name}", f"bunny chat runs/{name}/model PICTURE"]


def _gb(count: float) -> float:
    return round(count / 1e9, 1)
