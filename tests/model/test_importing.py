"""Folders of the original: every layout computes what its parts compute apart, and the same again and again."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bunny.core.errors import UserError
from bunny.model import original_towers, tensors
from bunny.model.language_models import load_language_model
from bunny.model.original_towers import published_tower
from bunny.model.vision import picture_side
from bunny.pipeline.convert import import_model
from tests.model.imported import AFTER, BEFORE, CLOSE, arcade, difference, edited, refusal, without
from tests.model.test_eva import eva_tensors
from tests.original_folders import FAMILIES, Twin, make, save_base, with_text_half

TOWER = "model.vision_tower.vision_tower."


# Layouts


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_what_its_parts_compute(tmp_path: Path, family: str) -> None:
    twin = make(tmp_path, family)
    facts = import_model(twin.save_whole(tmp_path / "model"), tmp_path / "out")
    assert facts["kind"] == "whole"
    assert facts["template"] == {"bunny-minicpm": "minicpm", "bunny-llama": "llama"}.get(family, "bunny")
    assert difference(twin, tmp_path / "out") < CLOSE


@pytest.mark.parametrize("form", ["safetensors", "bin", "sharded safetensors", "sharded bin"])
def test_weights_come_in_one_file_or_in_shards(tmp_path: Path, form: str) -> None:
    twin = make(tmp_path, hidden_size=48, num_hidden_layers=3, tied=True)
    import_model(twin.save_whole(tmp_path / "model", form), tmp_path / "out")
    assert difference(twin, tmp_path / "out") < CLOSE


def test_a_head_that_is_stored_though_it_is_tied_is_left_out_and_named(tmp_path: Path) -> None:
    twin = make(tmp_path, tied=True)
    state = twin.state() | {"lm_head.weight": twin.state()["model.embed_tokens.weight"]}
    facts = import_model(twin.save_whole(tmp_path / "model", "bin", state), tmp_path / "out")
    assert "lm_head.weight" in facts["left_out"]
    assert difference(twin, tmp_path / "out") < CLOSE


def test_a_merged_file_in_half_precision_has_no_rows_beyond_its_words(tmp_path: Path) -> None:
    twin = make(tmp_path)
    for tensor in twin.state().values():
        tensor.copy_(tensor.half())  # the twin computes with the rounded numbers
    twin.changes = {"vocab_size": twin.words}
    cut = {
        name: tensor[: twin.words] if tensor.shape[:1] == (twin.rows,) else tensor
        for name, tensor in twin.state().items()
    }
    folder = twin.save_whole(tmp_path / "merged", state={name: tensor.half() for name, tensor in cut.items()})
    facts = import_model(folder, tmp_path / "out")
    assert facts["dtype"] == "float16"
    assert load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"].shape[0] == twin.words + 1
    assert difference(twin, tmp_path / "out") < CLOSE


@pytest.mark.parametrize("tower", ["siglip", "clip", "eva"])
def test_a_projector_comes_with_its_base_and_its_tower(tmp_path: Path, tower: str) -> None:
    twin = make(tmp_path, tower=tower)
    if tower == "clip":
        with_text_half(tmp_path / "tower")
    facts = import_model(twin.save_projector(tmp_path / "pretrain"), tmp_path / "out")
    assert facts["kind"] == "projector"
    assert len(facts["left_out"]) == len(set(facts["left_out"])) > 0
    assert difference(twin, tmp_path / "out") < CLOSE


@pytest.mark.parametrize("whole", [True, False])
def test_s2_features_are_the_towers_at_each_size(tmp_path: Path, whole: bool) -> None:
    twin = make(tmp_path, "bunny-llama", scales=(32, 64, 96))
    save = twin.save_whole if whole else twin.save_projector
    import_model(save(tmp_path / "model"), tmp_path / "out")
    assert difference(twin, tmp_path / "out") < CLOSE


SCALINGS: dict[str, tuple[dict[str, Any], Callable[[str], float]]] = {
    "plain": ({}, lambda name: 2.0),
    "rank-stabilised": ({"use_rslora": True}, lambda name: 4 / math.sqrt(2)),
    "by pattern": (
        {"alpha_pattern": {"layers.1.self_attn.q_proj|v_proj": 1, "fc1": 6}},
        lambda name: 3.0 if "fc1" in name else 0.5 if name.endswith(("1.self_attn.q_proj", "v_proj")) else 2.0,
    ),
}


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("kind", SCALINGS)
def test_adapters_are_added_to_their_base(tmp_path: Path, kind: str, form: str) -> None:
    settings, scaling = SCALINGS[kind]
    twin = make(tmp_path)
    folder = twin.save_lora(tmp_path / "lora", twin.add_adapters(scaling), form, **settings)
    facts = import_model(folder, tmp_path / "out")
    assert (facts["kind"], facts["dtype"]) == ("lora", "float32")
    assert difference(twin, tmp_path / "out") < CLOSE


def test_a_tower_that_was_trained_beside_adapters_is_taken_from_there(tmp_path: Path) -> None:
    twin = make(tmp_path, "bunny-qwen2")
    twin.changes = {"unfreeze_vision_tower": True}
    twin.train_tower()
    beside = twin.projector_state() | twin.tower_state()
    import_model(twin.save_lora(tmp_path / "lora", twin.add_adapters(lambda _: 2.0), beside=beside), tmp_path / "out")
    assert difference(twin, tmp_path / "out") < CLOSE


def below(state: dict[str, Tensor], adapters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as peft leaves them: a layer with an adapter is called `base_layer`."""
    layers = {name.partition(".lora_")[0] for name in adapters}
    parts = {name: name.rpartition(".") for name in state}
    return {
        f"{layer}.base_layer.{leaf}" if layer in layers else name: state[name]
        for name, (layer, _, leaf) in parts.items()
    }


@pytest.mark.parametrize("frozen", [False, True])
def test_adapters_inside_the_tower_are_added_too(tmp_path: Path, frozen: bool) -> None:
    """Continuous LoRA tuning: layers of the tower are named as the language model's and get adapters."""
    twin = make(tmp_path)
    if not frozen:
        twin.train_tower()
    tower = {name: tensor.clone() for name, tensor in twin.tower_state().items()}
    adapters = twin.add_adapters(lambda _: 2.0, tower=True)
    assert any("head.mlp.fc1" in name for name in adapters)
    assert sum(name.startswith(TOWER) for name in adapters) > 20
    beside = twin.projector_state() | ({} if frozen else below(tower, adapters))
    import_model(twin.save_lora(tmp_path / "lora", adapters, beside=beside), tmp_path / "out")
    assert difference(twin, tmp_path / "out") < CLOSE


def test_a_base_that_is_a_bunny_gives_its_tower_and_not_its_projector(tmp_path: Path) -> None:
    """Continuous LoRA tuning starts from a merged model."""
    twin = make(tmp_path)
    twin.train_tower()
    twin.save_whole(tmp_path / "merged")
    for parameter in twin.projector.parameters():
        parameter.data.mul_(1.1)
    folder = twin.save_lora(tmp_path / "lora", twin.add_adapters(lambda _: 2.0), base_model_name_or_path="merged")
    import_model(folder, tmp_path / "out")
    assert difference(twin, tmp_path / "out") < CLOSE


def test_a_trained_eva_tower_is_named_as_the_original_names_it(tmp_path: Path) -> None:
    twin = make(tmp_path, tower="eva")
    names = {f"{TOWER}model.{name.removeprefix('visual.')}": t for name, t in eva_tensors().items() if "visual" in name}
    trained = {name: tensor.float() * 1.1 for name, tensor in names.items() if "rope" not in name}
    folder = twin.save_lora(
        tmp_path / "lora", twin.add_adapters(lambda _: 2.0), beside=twin.projector_state() | trained
    )
    import_model(folder, tmp_path / "out")
    for parameter in twin.tower.parameters():
        parameter.data.mul_(1.1)
    assert difference(twin, tmp_path / "out") < CLOSE


# Released folders


@pytest.fixture
def known_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny tower whose name is in the table of published ones."""
    table, name = tmp_path / "towers.yaml", "google/siglip-so400m-patch14-384"
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    sizes |= {"image_size": 32, "patch_size": 8}
    processor = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}}
    about = {name: {"config": {"model_type": "siglip_vision_model", **sizes}, "image_processor": processor}}
    table.write_text(json.dumps(about))
    monkeypatch.setattr(original_towers, "TABLE", table)
    return name


def released(twin: Twin, folder: Path, tower: str) -> Path:
    """As on the hub: shards, a tower without its last block and head, and code beside it, which must not run."""
    code = {"AutoConfig": "configuration_bunny.Config", "AutoModelForCausalLM": "modeling_bunny.Model"}
    twin.changes = {"auto_map": code, "mm_vision_tower": tower, "unfreeze_vision_tower": True}
    state = {name: tensor for name, tensor in twin.state().items() if not name.startswith(TOWER)}
    twin.save_whole(folder, "sharded safetensors", state | twin.tower_state(trimmed=True))
    for name in ("configuration_bunny.py", "modeling_bunny.py", "tokenization_bunny.py"):
        (folder / name).write_text("raise SystemExit('code of the folder was run')\n")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"tokenizer_class": "BunnyTokenizer"}
    path.write_text(json.dumps(settings | {"auto_map": {"AutoTokenizer": ["tokenization_bunny.BunnyTokenizer", None]}}))
    return folder


def test_a_released_folder_needs_no_tower_and_runs_no_code(tmp_path: Path, known_tower: str) -> None:
    twin = make(tmp_path)
    twin.train_tower()
    folder = released(twin, tmp_path / "hub", known_tower)
    (tmp_path / "tower").rename(tmp_path / "elsewhere")
    facts = import_model(folder, tmp_path / "out")
    assert difference(twin, tmp_path / "out") < CLOSE
    assert facts["left_out"] == []
    twin.changes |= {"mm_vision_tower": "/share/models/siglip-so400m-patch14-384"}
    twin.save_config(folder)
    import_model(folder, tmp_path / "again", vision_tower=known_tower)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "again"))
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())
    assert "--vision-tower" in refusal(folder, tmp_path / "third")


def test_a_published_towers_name_is_no_weights(tmp_path: Path, known_tower: str) -> None:
    twin = make(tmp_path)
    twin.changes = {"mm_vision_tower": known_tower}
    said = refusal(twin.save_projector(tmp_path / "pretrain"), tmp_path / "out")
    assert known_tower in said
    assert "HF_HUB_OFFLINE" in said
    assert said.endswith("say where it is with --vision-tower")


@pytest.mark.parametrize(
    ("name", "width", "side", "blocks", "patches"),
    [
        ("google/siglip-so400m-patch14-384", 1152, 384, 27, 729),
        ("openai/clip-vit-large-patch14-336", 1024, 336, 24, 576),
    ],
)
def test_published_towers_are_known(name: str, width: int, side: int, blocks: int, patches: int) -> None:
    found = published_tower(name)
    assert found is not None
    config, processor = found
    assert (config.hidden_size, config.image_size, config.num_hidden_layers) == (width, side, blocks)
    assert (config.image_size // config.patch_size) ** 2 == patches
    assert picture_side(processor) == side
    assert published_tower(name.rpartition("/")[2]) is None


# The same again


def test_the_same_folder_gives_the_same_bytes_and_no_path(tmp_path: Path) -> None:
    twin = make(tmp_path)
    folder = twin.save_projector(tmp_path / "pretrain")
    for name in ("one", "two"):
        import_model(folder, tmp_path / name)
    ones = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert ones == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    assert [name for name, content in ones.items() if str(tmp_path).encode() in content] == []


def test_links_are_followed(tmp_path: Path) -> None:
    twin = make(tmp_path)
    folder = twin.save_whole(tmp_path / "blobs")
    (tmp_path / "model").mkdir()
    for path in folder.iterdir():
        (tmp_path / "model" / path.name).symlink_to(path)
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    (tmp_path / "link").symlink_to("model")
    import_model(tmp_path / "link", tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "model.safetensors").exists()
    assert difference(twin, tmp_path / "out") < CLOSE
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / "model.safetensors").symlink_to("nowhere")
    assert "no weights there" in refusal(tmp_path / "link", tmp_path / "another")


KILLED = """
import os, signal, sys
from pathlib import Path
from bunny.model import importing
from bunny.pipeline.convert import import_model
setattr(importing, "publish", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
import_model(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_after_a_kill_nothing_is_half_there_and_the_same_command_works(tmp_path: Path) -> None:
    twin = make(tmp_path)
    folder, out = twin.save_whole(tmp_path / "model"), tmp_path / "out"
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder), str(out)], check=False).returncode < 0
    assert not out.exists()
    assert (tmp_path / ".out.work").exists()
    import_model(folder, out)
    assert not (tmp_path / ".out.work").exists()
    assert difference(twin, out) < CLOSE


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path).save_whole(tmp_path / "model")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = refusal(folder, tmp_path / "out")
    assert "No space left on device" in said
    assert "-o" in said


def test_a_pickled_file_is_unpickled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each tensor; but its pages are let go after so many bytes."""
    folder = make(tmp_path).save_whole(tmp_path / "model", "bin")
    opened: list[Any] = []
    read = torch.load
    monkeypatch.setattr(torch, "load", lambda *words, **options: opened.append(words) or read(*words, **options))
    import_model(folder, tmp_path / "one")
    assert len(opened) == 1
    monkeypatch.setattr(tensors, "MAPPED_BYTES", 100_000)
    import_model(folder, tmp_path / "two")
    assert 2 < len(opened) < 8
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


# Base models of the original


def test_a_minicpm_base_that_names_no_model_type_is_known_by_its_class(tmp_path: Path) -> None:
    twin = make(tmp_path, "bunny-minicpm")
    base_folder = save_base(twin, tmp_path / "minicpm-phi", "sharded bin")
    without(base_folder / "config.json", "model_type")
    edited(base_folder / "config.json", architectures=["MiniCPMForCausalLM"], auto_map={"AutoConfig": "code.Config"})
    model, _ = load_language_model(str(base_folder))
    ids = torch.tensor([[*BEFORE, *AFTER]])
    with torch.no_grad():
        assert (model(ids).logits - twin._reference()(ids).logits).abs().max() < CLOSE
    edited(base_folder / "config.json", architectures=["PhiForCausalLM"])
    with pytest.raises(UserError, match="no model_type"):
        load_language_model(str(base_folder))


def test_a_tokenizer_of_code_is_read_from_its_file(tmp_path: Path) -> None:
    twin = make(tmp_path, "bunny-stablelm")
    arcade(tmp_path / "base_llm")
    import_model(twin.save_projector(tmp_path / "pretrain"), tmp_path / "out")
    assert difference(twin, tmp_path / "out") < CLOSE
