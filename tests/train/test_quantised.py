"""LoRA on frozen weights of 4 and 8 bits (QLoRA): it learns, and what it learnt is merged into the whole weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.model import language_models
from bunny.model.build import build
from bunny.train.stage import train_stage
from tests.train.job import TEMPLATE, open_image, samples, section


def model_of(parts: Path, quantise: Any) -> tuple[Any, Any]:
    model = ModelSection(language_model=str(parts / "llm"), vision_tower=str(parts / "tower"))
    return build(model, TEMPLATE.model_dump(), TEMPLATE.jinja(), 0, quantise)


@pytest.mark.parametrize("quantise", ["nf4", "int8"])
def test_adapters_learn_on_quantised_weights_and_are_merged_into_whole_ones(
    parts: Path, tmp_path: Path, quantise: str
) -> None:
    pytest.importorskip("bitsandbytes")
    lora = {"r": 4, "alpha": 8, "dropout": 0.0}
    how = section(precision="bf16", lora={**lora, "quantise": quantise}, max_steps=20)
    model, processor = model_of(parts, quantise)
    small = [p for p in model.model.language_model.parameters() if p.dtype in (torch.uint8, torch.int8)]
    assert small  # it is quantised indeed
    trained = train_stage(
        how, model, processor, samples(), open_image, tmp_path, 3, "tune", fresh=lambda: model_of(parts, None)[0]
    )
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]
    before, after = model_of(parts, None)[0].state_dict(), trained.model.state_dict()
    assert before.keys() == after.keys()
    assert all(tensor.is_floating_point() == after[name].is_floating_point() for name, tensor in before.items())
    name = next(name for name in before if name.endswith("q_proj.weight"))
    moved = (after[name].float() - before[name]).norm() / before[name].norm()
    assert 0.001 < moved < 0.5  # the whole weight plus what was learnt


def test_what_is_missing_is_said(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.is_bitsandbytes_available", lambda: False)
    with pytest.raises(UserError, match=r"`quantise: nf4` needs bitsandbytes.*bunny-vlm\[gpu\]"):
        language_models.load_language_model(str(parts / "llm"), "nf4")
