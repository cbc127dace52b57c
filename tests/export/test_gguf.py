"""GGUF files: read back by transformers' own reader, and by llama.cpp where llama-cpp-python is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.export import gguf_folder
from bunny.export.gguf_families import FAMILIES, window
from bunny.export.gguf_folder import Files, write_gguf_folder
from bunny.export.gguf_tokenizer import tokenizer_settings
from bunny.export.llama_engine import installed
from bunny.export.opened import open_model
from bunny.export.verifying_gguf import verify_gguf
from bunny.model.build import build, load
from bunny.pipeline import zoo
from bunny.pipeline.convert import import_model
from bunny.text.template import Template
from tests import zoo_backbones
from tests.original_folders import make
from tests.tiny import byte_level, save_language_model, save_tower

gguf = pytest.importorskip("gguf")
TEMPLATE = Template.named("chatml")
READ_BY_TRANSFORMERS = ["bunny-llama", "bunny-qwen2", "bunny-minicpm", "bunny-stablelm", "bunny-phi3"]
WRITTEN = {*FAMILIES, "minicpm", "granite"} - {
    "smollm3"
}  # its two-layer twin leaves out other positions than llama.cpp
CAN = {name for name, one in zoo.backbones().language_models.items() if one.config["model_type"] in WRITTEN}
needs_llama_cpp = pytest.mark.skipif(not installed(), reason="llama-cpp-python is not installed")


def imported(work: Path, family: str, **sizes: Any) -> Path:
    make(work, family, **sizes).save_whole(work / "model")
    import_model(work / "model", work / "ours")
    return work / "ours"


def fresh(work: Path, family: str = "llama", tower: str = "siglip", **more: Any) -> Path:
    language, seen = save_language_model(work / "language", family), save_tower(work / "tower", tower)
    section = ModelSection(language_model=str(language), vision_tower=str(seen), **more)
    model, processor = build(section, TEMPLATE.model_dump(), TEMPLATE.jinja(), seed=0)
    model.save_pretrained(work / "ours")
    processor.save_pretrained(work / "ours")
    return work / "ours"


def written(folder: Path, out: Path, kind: str = "f16") -> Files:
    out.mkdir()
    return write_gguf_folder(open_model(folder), out, kind)


@pytest.mark.parametrize("family", READ_BY_TRANSFORMERS)
def test_transformers_own_reader_finds_the_same_language_model(tmp_path: Path, family: str) -> None:
    sizes = {"num_hidden_layers": 2} if family != "bunny-minicpm" else {}
    folder = imported(tmp_path, family, **sizes)
    files = written(folder, tmp_path / "gguf", "f32")
    ours, processor = load(folder)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "gguf", gguf_file=files.text, dtype=torch.float32).eval()
    words = ours.config.words
    assert theirs.config.vocab_size == words
    ids = torch.randint(0, words, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine, its = ours(input_ids=ids).logits[..., :words], theirs(input_ids=ids).logits
    assert (mine - its).abs().max() <= 1e-5 * mine.abs().max()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "gguf", gguf_file=files.text)
    text = "USER: what is this? ASSISTANT: a red\n circle 1 23 é"
    assert tokenizer(text).input_ids == processor.tokenizer(text).input_ids


@pytest.mark.parametrize(("kind", "most"), [("f16", 1e-3), ("q8_0", 0.01), ("q4_0", 0.15)])
def test_numbers_in_the_file_are_the_models_rounded(tmp_path: Path, kind: str, most: float) -> None:
    folder = fresh(tmp_path, "qwen2")
    files = written(folder, tmp_path / "gguf", kind)
    reader = gguf.GGUFReader(tmp_path / "gguf" / files.text)
    (tensor,) = (one for one in reader.tensors if one.name == "blk.1.ffn_up.weight")
    assert tensor.tensor_type.name.lower() == kind
    model, _ = load(folder)
    wanted = model.model.language_model.layers[1].mlp.up_proj.weight.detach().numpy()
    found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    assert 0 < np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < most


def test_phi_gets_a_bias_of_zeros_and_no_row_that_is_no_word(tmp_path: Path) -> None:
    folder = imported(tmp_path, "bunny-phi")
    files = written(folder, tmp_path / "gguf")
    tensors = {one.name: one for one in gguf.GGUFReader(tmp_path / "gguf" / files.text).tensors}
    words = open_model(folder).words
    assert not tensors["output.bias"].data.any()
    assert list(tensors["output.weight"].shape) == [32, words]
    assert list(tensors["token_embd.weight"].shape) == [32, words]


def test_the_tower_ends_at_the_chosen_block_and_has_no_last_norm(tmp_path: Path) -> None:
    files = written(fresh(tmp_path), tmp_path / "gguf")
    reader = gguf.GGUFReader(tmp_path / "gguf" / files.mmproj)
    names = {one.name for one in reader.tensors}
    assert {name.split(".")[2] for name in names if name.startswith("v.blk.")} == {"0", "1"}
    assert not any("post" in name for name in names)
    assert {"v.patch_embd.bias", "v.position_embd.weight", "mm.0.weight", "mm.1.bias"} < names
    assert reader.fields["clip.projector_type"].contents() == "janus_pro"


def test_ollamas_file_names_both_files_the_template_and_where_answers_end(tmp_path: Path) -> None:
    written(fresh(tmp_path), tmp_path / "gguf")
    text = (tmp_path / "gguf" / "Modelfile").read_text()
    assert text.startswith("FROM ./text-f16.gguf\nFROM ./mmproj-f16.gguf\n")
    assert "<|im_start|>user\n{{ .Content }}<|im_end|>\n" in text
    assert 'PARAMETER stop "<|im_end|>"' in text


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"projector": "linear"}, "its projector is `linear`"),
        ({"s2_scales": [32, 64]}, "S2"),
        ({"tower": "dinov2"}, "llama.cpp cannot run its `dinov2` tower"),
        ({"tower": "clip"}, "llama.cpp cannot run its `clip` tower"),
    ],
)
def test_what_gguf_cannot_express_is_refused_with_what_can(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    folder = fresh(tmp_path, **more)
    with pytest.raises(UserError, match=why) as caught:
        written(folder, tmp_path / "gguf")
    assert "--to" in caught.value.fix


def test_a_language_model_that_llama_cpp_has_not_is_refused_with_the_list(tmp_path: Path) -> None:
    name = "google/gemma-3-1b-it"
    zoo_backbones.save_language_model(tmp_path / "gemma", name, zoo.backbones().language_models[name], "")
    section = ModelSection(language_model=str(tmp_path / "gemma"), vision_tower=str(save_tower(tmp_path / "tower")))
    model, processor = build(section, TEMPLATE.model_dump(), TEMPLATE.jinja(), seed=0)
    model.save_pretrained(tmp_path / "ours")
    processor.save_pretrained(tmp_path / "ours")
    with pytest.raises(UserError, match="gemma3_text` cannot be written as GGUF") as caught:
        written(tmp_path / "ours", tmp_path / "gguf")
    assert "qwen2" in caught.value.fix


def test_a_tokenizer_that_cuts_texts_in_an_unknown_way_is_refused(tmp_path: Path) -> None:
    from tokenizers import pre_tokenizers

    tokenizer = byte_level()
    cuts = [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"how its tokenizer cuts a text \(<Punctuation>, <byte level>\)"):
        tokenizer_settings(tmp_path, 300, "</s>")


def test_a_number_too_large_for_f16_is_refused(tmp_path: Path) -> None:
    folder = fresh(tmp_path)
    model, _ = load(folder)
    with torch.no_grad():
        model.model.language_model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    model.save_pretrained(folder)
    with pytest.raises(UserError, match=r"1e\+05 does not fit f16"):
        written(folder, tmp_path / "gguf")


def test_k_quants_without_llama_cpp_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bunny.export.llama_engine.installed", lambda: False)
    with pytest.raises(UserError, match="--type q4_k_m needs llama-cpp-python") as caught:
        written(fresh(tmp_path), tmp_path / "gguf", "q4_k_m")
    assert "pip install llama-cpp-python" in caught.value.fix


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path: Path) -> None:
    assert "q4_k_m" in gguf_folder.KINDS
    with pytest.raises(UserError, match="--type q4_k"):
        written(fresh(tmp_path), tmp_path / "gguf", "q4_k")


@pytest.mark.slow
@needs_llama_cpp
@pytest.mark.parametrize("name", sorted(CAN))
def test_llama_cpp_computes_the_same_for_every_family(tmp_path: Path, name: str) -> None:
    zoo_backbones.save_language_model(tmp_path / "language", name, zoo.backbones().language_models[name], "")
    section = ModelSection(language_model=str(tmp_path / "language"), vision_tower=str(save_tower(tmp_path / "tower")))
    model, processor = build(section, TEMPLATE.model_dump(), TEMPLATE.jinja(), seed=0)
    model.save_pretrained(tmp_path / "ours")
    processor.save_pretrained(tmp_path / "ours")
    if window(model.config.text_config):  # a few tokens in the twin, shorter than the talks
        config = json.loads((tmp_path / "ours" / "config.json").read_text())
        config["text_config"]["sliding_window"] = 500
        (tmp_path / "ours" / "config.json").write_text(json.dumps(config))
    files = written(tmp_path / "ours", tmp_path / "gguf", "f32")
    found = verify_gguf(tmp_path / "ours", tmp_path / "gguf", files, "f32")
    assert found.failures == ()
    assert len(files.notes) == (window(model.config.text_config) > 0)


@pytest.mark.slow
@needs_llama_cpp
def test_k_quants_are_made_by_llama_cpp_and_compute_what_their_numbers_say(tmp_path: Path) -> None:
    folder = fresh(tmp_path, "qwen2")
    files = written(folder, tmp_path / "gguf", "q4_k_m")
    assert sorted(path.name for path in (tmp_path / "gguf").glob("*.gguf")) == [files.mmproj, files.text]
    assert verify_gguf(folder, tmp_path / "gguf", files, "q4_k_m").failures == ()


@pytest.mark.slow
@needs_llama_cpp
def test_a_spoilt_file_is_found(tmp_path: Path) -> None:
    folder = fresh(tmp_path, "qwen2")
    files = written(folder, tmp_path / "gguf", "f32")
    model, _ = load(folder)
    with torch.no_grad():
        model.model.multi_modal_projector[2].weight[:] *= 1.01
        model.model.language_model.layers[0].mlp.up_proj.weight[:] *= 1.1
    model.save_pretrained(folder)
    found = verify_gguf(folder, tmp_path / "gguf", files, "f32")
    assert any("embeddings" in one for one in found.failures)
    assert any("logits" in one for one in found.failures)
