"""A tiny random Bunny folder: what the tests of conversations talk to."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bunny.core.recipe import ModelSection
from bunny.model.build import build
from bunny.text.template import Template
from tests.tiny import save_language_model, save_tower


def save_bunny(folder: Path, seed: int = 0, width: int = 32) -> Path:
    """A folder that `bunny chat` opens: a tower, a projector and a language model of 2 layers."""
    save_tower(folder / "parts" / "tower")
    save_language_model(folder / "parts" / "words")
    if width != 32:
        config = AutoConfig.from_pretrained(folder / "parts" / "words")
        config.update({"hidden_size": width, "intermediate_size": 2 * width, "head_dim": width // 4})
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / "parts" / "words")
    section = ModelSection(language_model=str(folder / "parts" / "words"), vision_tower=str(folder / "parts" / "tower"))
    template = Template.named("chatml")
    model, processor = build(section, template.model_dump(), template.jinja(), seed)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder / "model"
