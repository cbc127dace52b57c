"""What a run would trip over in its last stage, found before its first.

In: a recipe. Out: nothing, or a `UserError` in one line. Nothing is loaded and no network is asked: names of templates,
projectors and bundled models, and files that training and evaluation read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.recipe import Recipe, StageSection, check_blocks
from bunny.pipeline.stages import NATIVE, makers_of

FILE_KEYS = ("path", "words", "images")
"""Settings of a block that name a file or folder, in the blocks that come with Bunny."""


def check_recipe(recipe: Recipe) -> None:
    """Raise UserError for a block, name or file of the recipe that is not there."""
    from bunny.model.bundled import check_reference
    from bunny.model.projector import check_kind
    from bunny.text.template import Template

    check_blocks(recipe, recipe.name)
    if recipe.model.checkpoint is None:
        for reference in (recipe.model.language_model, recipe.model.vision_tower):
            check_reference(reference)
        check_kind(recipe.model.projector)
        if recipe.model.template != NATIVE:
            Template.named(recipe.model.template)
    for name, section in training_sections(recipe):
        if section.lora.quantise and (section.language_model != "lora" or recipe.model.checkpoint):
            fix = "it quantises the released language model; LoRA learns on top"
            raise UserError(f"{name}.lora.quantise goes with `language_model: lora` and the model's parts", fix=fix)
        if section.template == NATIVE:
            raise UserError(f"{name}.template: {NATIVE} is the model's", fix="leave it out: a stage uses the model's")
        if section.template is not None:
            Template.named(section.template)
    for name, section in training_sections(recipe):
        for maker in makers_of(section, recipe, name):
            maker.check()
    for where, path in _files(recipe):
        if not path.exists():
            raise UserError(f"{where}: {path}: no such file or folder", fix="correct it in the recipe or make the file")


def _files(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """(place in the recipe, path) of the files that stages after curation read; patterns are left to their readers."""
    if recipe.model.checkpoint is not None:
        yield "model.checkpoint", recipe.locate(recipe.model.checkpoint)
    for name, section in training_sections(recipe):
        if section.deepspeed:
            yield f"{name}.deepspeed", recipe.locate(section.deepspeed)
        if section.start_projector:
            yield f"{name}.start_projector", recipe.locate(section.start_projector)
        for number, block in enumerate(section.data):
            yield from _named(f"{name}.data.{number}", block, recipe)
    for number, block in enumerate(recipe.evaluate.tasks if recipe.evaluate else ()):
        yield from _named(f"evaluate.tasks.{number}", block, recipe)


def training_sections(recipe: Recipe) -> list[tuple[str, StageSection]]:
    """The training stages that the recipe has."""
    sections = {"align": recipe.align, "tune": recipe.tune, "second": recipe.second}
    return [(name, section) for name, section in sections.items() if section is not None]


def _named(where: str, block: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, Path]]:
    if ":" in str(block.get("use")):
        return  # code from outside: its settings may mean anything
    for key in FILE_KEYS:
        value = block.get(key)
        if isinstance(value, str) and value and not set(value) & set("*?["):
            yield f"{where}.{key}", recipe.locate(value)
