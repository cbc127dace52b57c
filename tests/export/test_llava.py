"""A stock LLaVA folder computes what the Bunny computes: golden models of the original, every family of the zoo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.export.verifying import verify_llava
from bunny.model.build import build, load
from bunny.pipeline import zoo
from bunny.pipeline.convert import import_model
from bunny.text.template import Template
from tests import zoo_backbones
from tests.export.sides import agreement, exported, stock_model
from tests.original_folders import FAMILIES, make
from tests.tiny import save_language_model, save_tower

PLAIN = ["phi-1.5", "phi-2", "phi-2-clip", "phi-3", "stablelm-2", "qwen1.5-1.8b", "minicpm", "llama3-8b"]
TEMPLATE = Template.named("chatml")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order: several threads cut a product in pieces that differ from call to call."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def imported(golden: Path, out: Path) -> Path:
    kind = "model" if (golden / "model").exists() else "lora_merged" if (golden / "lora_merged").exists() else "lora"
    import_model(golden / kind, out)
    return out


def saved(folder: Path, language: Path, tower: Path, **more: Any) -> Path:
    """A fresh Bunny of the parts, saved in `folder`."""
    section = ModelSection(language_model=str(language), vision_tower=str(tower), **more)
    model, processor = build(section, TEMPLATE.model_dump(), TEMPLATE.jinja(), seed=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_a_golden_model_of_the_original_is_the_same_in_stock_transformers(
    goldens: Path, tmp_path: Path, name: str
) -> None:
    folder = imported(goldens / name, tmp_path / "ours")
    written = exported(folder, tmp_path / "llava")
    found = agreement(folder, tmp_path / "llava", tmp_path)
    assert found.failures == ()
    assert found.probes == 6
    assert bool(written.folded) == (name == "minicpm")
    if not written.folded:
        assert found.logits <= 1e-6


@pytest.mark.parametrize("name", ["phi-2-eva", "phi-3-s2", "llama3-8b-s2"])
def test_eva_and_s2_are_refused_by_name_with_what_there_is_instead(goldens: Path, tmp_path: Path, name: str) -> None:
    folder = imported(goldens / name, tmp_path / "ours")
    with pytest.raises(UserError, match="S2" if "s2" in name else "eva02_vision") as caught:
        exported(folder, tmp_path / "llava")
    assert "--to merged" in caught.value.fix


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(zoo.backbones().language_models))
def test_every_language_model_of_the_zoo_is_the_same_or_refused(tmp_path: Path, name: str) -> None:
    backbone = zoo.backbones().language_models[name]
    zoo_backbones.save_language_model(tmp_path / "language", name, backbone, "")
    folder = saved(tmp_path / "ours", tmp_path / "language", save_tower(tmp_path / "tower"))
    if backbone.config["model_type"] == "gemma2":
        with pytest.raises(UserError, match="caps its logits"):
            exported(folder, tmp_path / "llava")
        return
    exported(folder, tmp_path / "llava")
    assert agreement(folder, tmp_path / "llava", tmp_path).failures == ()


@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("tower", ["siglip", "clip", "dinov2"])
def test_every_tower_and_both_ways_of_preparing_pictures(tmp_path: Path, tower: str, aspect: Any) -> None:
    language = save_language_model(tmp_path / "language", "qwen2")
    folder = saved(tmp_path / "ours", language, save_tower(tmp_path / "tower", tower), image_aspect=aspect)
    exported(folder, tmp_path / "llava")
    found = agreement(folder, tmp_path / "llava", tmp_path)
    assert found.failures == ()


def test_a_process_without_bunny_loads_it_and_computes_the_same(tmp_path: Path) -> None:
    folder = saved(tmp_path / "ours", save_language_model(tmp_path / "language"), save_tower(tmp_path / "tower"))
    exported(folder, tmp_path / "llava")
    found = verify_llava(folder, tmp_path / "llava", None, folded=False)
    assert found.failures == ()
    assert found.logits <= 1e-6


def test_a_changed_weight_is_found(tmp_path: Path) -> None:
    folder = saved(tmp_path / "ours", save_language_model(tmp_path / "language"), save_tower(tmp_path / "tower"))
    exported(folder, tmp_path / "llava")
    model, _ = stock_model(tmp_path / "llava")
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight[0, 0] += 0.5
    model.save_pretrained(tmp_path / "llava")
    found = agreement(folder, tmp_path / "llava", tmp_path)
    assert any("logits differ" in one for one in found.failures)


def test_the_layout_is_the_hubs(tmp_path: Path) -> None:
    make(tmp_path, "bunny-phi").save_whole(tmp_path / "model")
    import_model(tmp_path / "model", tmp_path / "ours")
    exported(tmp_path / "ours", tmp_path / "llava")
    with safe_open(tmp_path / "llava" / "model.safetensors", "pt") as file:
        names = set(file.keys())
        bias = file.get_tensor("language_model.lm_head.bias")
    assert {
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "language_model.model.embed_tokens.weight",
        "language_model.lm_head.weight",
        "multi_modal_projector.linear_1.weight",
        "multi_modal_projector.linear_2.bias",
        "vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight",
        "vision_tower.vision_model.post_layernorm.weight",
    } < names
    assert not bias.any()
    config = json.loads((tmp_path / "llava" / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["text_config"]["architectures"] == ["PhiForCausalLM"]
    assert config["vision_config"]["num_hidden_layers"] == 2
    assert (config["text_config"]["rope_theta"], config["text_config"]["partial_rotary_factor"]) == (10000.0, 0.5)


def test_the_image_token_never_wins_even_where_nothing_suppresses_it(tmp_path: Path) -> None:
    make(tmp_path, "bunny-llama").save_whole(tmp_path / "model")
    import_model(tmp_path / "model", tmp_path / "ours")
    exported(tmp_path / "ours", tmp_path / "llava")
    model, processor = stock_model(tmp_path / "llava")
    image = model.config.image_token_id
    ids = torch.randint(0, image, (40, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(input_ids=ids).logits.double()
    assert logits.shape[-1] == image + 1
    assert (logits.argmax(-1) != image).all()
    mean = logits[..., :image].mean(-1)
    assert torch.allclose(logits[..., image], mean, atol=1e-5)
    assert (logits.softmax(-1)[..., image] <= 1 / image).all()
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == image


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "I;16"])
def test_pictures_of_every_mode_without_transparency_give_the_same_pixels(tmp_path: Path, mode: str) -> None:
    folder = saved(tmp_path / "ours", save_language_model(tmp_path / "language"), save_tower(tmp_path / "tower"))
    exported(folder, tmp_path / "llava")
    _, ours = load(folder)
    _, stock = stock_model(tmp_path / "llava")
    noise = torch.randint(0, 256, (31, 47, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    picture = Image.fromarray(noise.numpy())
    picture = picture.convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
    theirs = stock.image_processor(picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(ours.pixels([picture]), theirs)


@pytest.mark.parametrize("projector", ["linear", "mlp3x_gelu", "spp_v1", "ldp", "minigpt", "identity"])
def test_projectors_that_llava_has_not_are_refused(tmp_path: Path, projector: str) -> None:
    language, tower = save_language_model(tmp_path / "language"), save_tower(tmp_path / "tower")
    try:
        folder = saved(tmp_path / "ours", language, tower, projector=projector)
    except (UserError, RuntimeError):
        pytest.skip("the tiny parts do not fit this projector")
    with pytest.raises(UserError, match=f"its projector is `{projector}`"):
        exported(folder, tmp_path / "llava")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_equals_the_model_rounded_to_it(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = saved(tmp_path / "ours", save_language_model(tmp_path / "language"), save_tower(tmp_path / "tower"))
    written = exported(folder, tmp_path / "llava", dtype)
    assert written.dtype == str(dtype).removeprefix("torch.")
    assert agreement(folder, tmp_path / "llava", tmp_path, dtype).failures == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_imported_from_the_original_keeps_no_row_that_is_no_word(tmp_path: Path, family: str) -> None:
    make(tmp_path, family).save_whole(tmp_path / "model")
    import_model(tmp_path / "model", tmp_path / "ours")
    exported(tmp_path / "ours", tmp_path / "llava")
    model, _ = stock_model(tmp_path / "llava")
    words = json.loads((tmp_path / "ours" / "config.json").read_text())["words"]
    assert model.config.text_config.vocab_size == words + 1
