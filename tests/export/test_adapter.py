"""A LoRA that was added to the weights comes out again, and peft puts it back in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.model.build import build, load
from bunny.pipeline.exporting import Wishes, export
from bunny.text.template import Template
from tests.tiny import save_language_model, save_tower

TEMPLATE = Template.named("chatml")


def fresh(work: Path) -> tuple[Any, Any]:
    language, tower = save_language_model(work / "language", "qwen2"), save_tower(work / "tower")
    section = ModelSection(language_model=str(language), vision_tower=str(tower))
    return build(section, TEMPLATE.model_dump(), TEMPLATE.jinja(), seed=0)


def save(model: Any, processor: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@torch.no_grad()
def taught(model: Any, ranks: dict[str, int]) -> None:
    """Add thin matrices to the layers so called."""
    draw = torch.Generator().manual_seed(3)
    for name, module in model.model.language_model.named_modules():
        rank = ranks.get(name.rpartition(".")[2])
        if rank:
            up, down = (
                torch.randn(size, generator=draw) for size in ((module.out_features, rank), (rank, module.in_features))
            )
            module.weight += 0.05 * up @ down


def test_peft_on_the_base_computes_what_the_bunny_computes(tmp_path: Path) -> None:
    model, processor = fresh(tmp_path)
    taught(model, {"q_proj": 3, "down_proj": 2})
    save(model, processor, tmp_path / "ours")
    facts = export(tmp_path / "ours", tmp_path / "out", "adapter", Wishes(base=str(tmp_path / "language")))
    assert (facts["matrices"], facts["rank"]) == (4, 3)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "language", dtype=torch.float32)
    whole = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    ids = torch.randint(0, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    ours, _ = load(tmp_path / "ours")
    with torch.no_grad():
        mine, its = ours(input_ids=ids).logits, whole(input_ids=ids).logits
    words = min(ours.config.words, its.shape[-1])
    assert (mine[..., :words] - its[..., :words]).abs().max() <= 1e-4
    projector = load_file(tmp_path / "out" / "projector.safetensors")
    for name, tensor in ours.model.multi_modal_projector.state_dict().items():
        assert torch.equal(projector[name], tensor)
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tmp_path / "language")


def test_a_model_that_was_tuned_whole_is_refused(tmp_path: Path) -> None:
    model, processor = fresh(tmp_path)
    with torch.no_grad():
        layer = model.model.language_model.layers[0].mlp.up_proj
        layer.weight += 0.05 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    save(model, processor, tmp_path / "ours")
    with pytest.raises(UserError, match="its change is not that of a LoRA") as caught:
        export(tmp_path / "ours", tmp_path / "out", "adapter", Wishes(base=str(tmp_path / "language")))
    assert "--to merged" in caught.value.fix
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [("norm", "it has learnt, and no adapter is for it"), ("nothing", "is the base itself"), ("base", "--base")],
)
def test_what_is_no_adapter_is_refused(tmp_path: Path, change: str, why: str) -> None:
    model, processor = fresh(tmp_path)
    if change == "norm":
        with torch.no_grad():
            model.model.language_model.norm.weight += 0.1
    save(model, processor, tmp_path / "ours")
    base = None if change == "base" else str(tmp_path / "language")
    with pytest.raises(UserError, match=why):
        export(tmp_path / "ours", tmp_path / "out", "adapter", Wishes(base=base))
