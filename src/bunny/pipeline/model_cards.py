"""The card of what a training stage made: parts, licences and sets put together for `bunny.train.model_card`.

In: a recipe, a finished stage's folder. Out: `README.md` and `card.json` in it. Licences are those of `backbones.yaml`,
of bundled models, of a model folder's own card, and of the published sets' files; others are called unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bunny.core.errors import UserError
from bunny.core.recipe import Recipe
from bunny.core.store import write_atomic
from bunny.curate.card import front_matter, without_roots

if TYPE_CHECKING:
    from bunny.train.model_card import Data, Part

DATA = "data.json"
"""In a stage's training folder: the sets that its rows were taken from."""

VERSIONS = ("bunny-vlm", "torch", "transformers", "peft", "accelerate")


def keep_data(training: Path, available: Mapping[str, int], used: Mapping[str, int]) -> None:
    """Remember, when the rows are read, how many each set gave."""
    counts = [{"name": name, "available": count, "used": used.get(name, 0)} for name, count in available.items()]
    write_atomic(training / DATA, json.dumps(counts, indent=1))


def write_model_card(
    recipe: Recipe, stage: str, folder: Path, facts: Mapping[str, Any], curated: Path | None = None
) -> None:
    """The card of a stage: `align`, `tune`, `second` or `merge`. curated: folder of the curation it learnt from."""
    from bunny.train.model_card import Card, write_card

    sections = {"model", stage} | ({"tune", "second"} if stage == "merge" else set())
    settings = recipe.model_dump(mode="json", exclude_unset=True, include={"name", "seed", "pool", "curate"} | sections)
    merged = dict(zip(("tune", "second"), recipe.merge.weights, strict=True)) if recipe.merge else {}
    card = Card(
        name=recipe.name,
        stage=stage,
        title=recipe.card.title if recipe.card and stage != "align" else "",
        parts=_parts(recipe),
        recipe=without_roots(settings),
        data=_data(recipe, stage, folder / "training" / DATA),
        facts=dict(facts),
        curation=_curation(curated),
        versions={name: found for name in VERSIONS if (found := _version(name))},
        merged=merged if stage == "merge" else {},
    )
    write_card(folder, card)


def _parts(recipe: Recipe) -> list[Part]:
    from bunny.train.model_card import Part

    model = recipe.model
    if model.checkpoint is not None:
        return [
            Part("model it goes on from", Path(model.checkpoint).name, licence=_own(recipe.locate(model.checkpoint)))
        ]
    return [
        _part(recipe, "language model", model.language_model),
        _part(recipe, "vision tower", model.vision_tower),
    ]


def _part(recipe: Recipe, what: str, reference: str) -> Part:
    """A language model or tower by its name in the recipe."""
    from bunny.model.bundled import ORIGINS, PREFIX
    from bunny.pipeline import zoo
    from bunny.train.model_card import Part

    if reference.startswith(PREFIX):
        hub, licence = ORIGINS.get(reference.removeprefix(PREFIX), ("", ""))
        return Part(what, reference, hub, licence)
    place = recipe.locate(reference)
    if Path(reference).exists() or place.exists():
        return Part(what, Path(reference).name, licence=_own(place))
    try:
        known = zoo.backbones()
    except UserError:  # installed without its recipes
        return Part(what, reference, reference)
    found = {**known.language_models, **known.vision_towers}.get(reference)
    hub = reference if reference.count("/") == 1 and not reference.endswith(".pt") else ""
    return Part(what, reference, hub, found.licence if found else "")


def _own(folder: Path) -> str:
    """The licence that a model folder's card names."""
    return str(front_matter(folder / "README.md").get("license", "")) if folder.is_dir() else ""


def _data(recipe: Recipe, stage: str, path: Path) -> list[Data]:
    from bunny.data.published_sets import published, published_names
    from bunny.train.model_card import Data

    if not path.exists():
        return []
    section = getattr(recipe, stage)
    out = []
    for counts, block in zip(json.loads(path.read_text(encoding="utf-8")), section.data, strict=False):
        known = str(block.get("name")) if block.get("use") == "published" else ""
        facts = published(known) if known in published_names() else None
        name = facts.title if facts else counts["name"]
        licence = " ".join(facts.licence.split()) if facts else ""
        out.append(Data(name, counts["available"], counts["used"], facts.hub if facts else "", licence))
    return out


def _curation(curated: Path | None) -> dict[str, int]:
    path = curated / "summary.json" if curated else None
    if path is None or not path.exists():
        return {}
    summary = json.loads(path.read_text(encoding="utf-8"))
    return {"kept": summary["kept"], "seen": summary["samples"]}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
