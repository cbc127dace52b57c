"""Folders of the original that are not whole, not right or not its: one line says what, where and how to mend it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bunny.core.errors import UserError
from bunny.pipeline.convert import import_model
from tests.model.imported import CLOSE, arcade, difference, edited, refusal, without
from tests.original_folders import make, write_weights

TOWER = "model.vision_tower.vision_tower."
Change = Callable[[Path], Any]


def weights(change: Callable[[dict[str, Tensor]], object]) -> Change:
    """A change of a whole checkpoint's tensors."""

    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def more_words(folder: Path) -> None:
    tree = json.loads((folder / "tokenizer.json").read_text())
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    first = 1 + max(tree["model"]["vocab"].values())
    tree["added_tokens"] += [{"id": first + n, "content": f"<new {n}>", **plain} for n in range(20)]
    (folder / "tokenizer.json").write_text(json.dumps(tree))


def config(**changes: Any) -> Change:
    return lambda folder: edited(folder / "config.json", **changes)


WHOLE: dict[str, tuple[Change, str]] = {
    "missing tensor": (weights(lambda s: s.pop("model.layers.1.mlp.fc1.weight")), "1 missing: .*layers.1.mlp.fc1"),
    "missing projector": (weights(lambda s: s.pop("model.mm_projector.2.bias")), "1 missing: .*projector.2.bias"),
    "missing tower tensor": (
        weights(lambda s: s.pop(f"{TOWER}vision_model.encoder.layers.1.mlp.fc2.bias")),
        "1 missing: .*layers.1.mlp.fc2.bias",
    ),
    "no embeddings": (weights(lambda s: s.pop("model.embed_tokens.weight")), "no model.embed_tokens.weight"),
    "unread tensor": (weights(lambda s: s.update({"model.extra.weight": torch.ones(1)})), "1 unread: .*extra.weight"),
    "unread tower tensor": (
        weights(lambda s: s.update({f"{TOWER}vision_model.more": torch.ones(1)})),
        "1 unread: .*vision_model.more",
    ),
    "wrong shape": (weights(lambda s: s.update({"model.mm_projector.0.bias": torch.ones(3)})), r"is \[3\], not \[32\]"),
    "short head": (weights(lambda s: s.update({"lm_head.weight": s["lm_head.weight"][:-3]})), "lm_head.weight is"),
    "quantised": (
        weights(lambda s: s.update({n: s[n].to(torch.int8) for n in s if "fc1.weight" in n})),
        "holds torch.int8",
    ),
    "cut off": (lambda folder: cut(folder / "model.safetensors"), "damaged"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "config cut": (lambda folder: cut(folder / "config.json"), "config.json: cannot be read"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[1]"), "not a JSON object"),
    "config deep": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "cannot be read"),
    "this Bunny": (config(model_type="bunny"), "this Bunny already"),
    "stock LLaVA": (config(model_type="llava"), "not of the original Bunny .model_type `llava`.*bunny-phi"),
    "base alone": (config(model_type="phi"), "not of the original Bunny"),
    "odd model type": (config(model_type=["bunny-phi"]), "not of the original Bunny"),
    "no model type": (lambda folder: without(folder / "config.json", "model_type"), "model_type `None`"),
    "no projector type": (lambda folder: without(folder / "config.json", "mm_projector_type"), "no mm_projector_type"),
    "unknown projector": (config(mm_projector_type="spp"), "config.json: no projector is called `spp`"),
    "odd projector": (config(mm_projector_type=["a"]), "mm_projector_type is"),
    "odd width": (config(mm_hidden_size="1152"), "mm_hidden_size is `1152`"),
    "another tower's width": (config(mm_hidden_size=24), "trained on 24 channels.*16.*--vision-tower"),
    "no tower named": (lambda folder: without(folder / "config.json", "mm_vision_tower"), "what the tower is"),
    "odd tower": (config(mm_vision_tower=["a"]), "what the tower is"),
    "tower elsewhere": (config(mm_vision_tower="/data/design/clip"), "`/data/design/clip` is not here.*--vision-tower"),
    "tower offline": (config(mm_vision_tower="google/other"), "google/other.*HF_HUB_OFFLINE.*--vision-tower"),
    "odd hub name": (config(mm_vision_tower="google/-a..b"), "google/-a..b.*--vision-tower"),
    "endless name": (config(mm_vision_tower="a" * 5000), "is not here.*--vision-tower"),
    "no such user": (config(mm_vision_tower="~nobody-of-this-name/a/b"), "is not here"),
    "odd scales": (config(use_s2=True, s2_scales="a,b"), "s2_scales `a,b`"),
    "no field": (lambda folder: without(folder / "config.json", "hidden_size"), "missing|is|hidden"),
    "odd field": (config(hidden_size="wide"), "config.json: a language model of type `phi` cannot"),
    "odd heads": (config(num_attention_heads=0), "config.json: "),
    "odd blocks": (config(num_hidden_layers=-1), ": "),
    "too many words": (more_words, "rows for a tokenizer of .* words.*--base"),
    "no tokenizer": (lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")], "no tokenizer"),
    "tokenizer cut": (lambda folder: cut(folder / "tokenizer.json"), "no tokenizer can be read"),
    "generation cut": (
        lambda folder: (folder / "generation_config.json").write_text("{"),
        "generation_config.json: no model",
    ),
    "adapters too": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "both a whole model"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_model_that_is_not_right_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    folder = make(tmp_path).save_whole(tmp_path / "model")
    change, why = WHOLE[case]
    change(folder)
    said = refusal(folder, tmp_path / "out")
    assert re.search(why, said), said
    assert str(tmp_path) in said


def adapter(change: Callable[[dict[str, Tensor]], object]) -> Change:
    def apply(folder: Path) -> None:
        state = load_file(folder / "adapter_model.safetensors")
        change(state)
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    return apply


def settings(**changes: Any) -> Change:
    return lambda folder: edited(folder / "adapter_config.json", **changes)


class Harmful:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("harm", "w")


def beside(content: Any) -> Change:
    return lambda folder: torch.save(content, folder / "non_lora_trainables.bin")


def other_base(**sizes: Any) -> Change:
    """The base's folder holds another model of the same family."""

    def apply(folder: Path) -> None:
        other = make(folder.parent / "other", **sizes)
        (folder.parent / "base_llm").rename(folder.parent / "before")
        (other.root / "base_llm").rename(folder.parent / "base_llm")

    return apply


def base(change: Change) -> Change:
    return lambda folder: change(folder.parent / "base_llm")


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LORA: dict[str, tuple[Change, str]] = {
    "half an adapter": (adapter(lambda s: s.pop(A)), "only half of the adapter of model.layers.0.self_attn.q_proj"),
    "no adapter": (adapter(lambda s: s.clear()), "no adapter in it"),
    "no adapter file": (lambda f: (f / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors or"),
    "no adapter config": (lambda f: (f / "adapter_config.json").unlink(), "adapters without adapter_config.json"),
    "adapter cut": (lambda f: cut(f / "adapter_model.safetensors"), "damaged"),
    "adapter config cut": (lambda f: cut(f / "adapter_config.json"), "adapter_config.json: cannot be read"),
    "DoRA": (settings(use_dora=True), "adapters with use_dora `True`.*peft"),
    "bias": (settings(bias="lora_only"), "adapters with bias `lora_only`.*peft"),
    "whole modules": (settings(modules_to_save=["lm_head"]), "modules_to_save .*peft"),
    "another kind": (settings(peft_type="IA3"), "peft_type `IA3`"),
    "base changed": (settings(init_lora_weights="pissa"), "init_lora_weights `pissa`"),
    "a magnitude": (
        adapter(lambda s: s.update({A.replace("lora_A", "lora_magnitude"): s[A].clone()})),
        "no LoRA weight.*peft",
    ),
    "no alpha": (lambda f: without(f / "adapter_config.json", "lora_alpha"), "lora_alpha `None`"),
    "odd alpha": (settings(alpha_pattern={"q_proj": "much"}), "alpha_pattern"),
    "odd pattern": (settings(alpha_pattern={"(": 1}), "alpha_pattern"),
    "pattern a list": (settings(alpha_pattern=["q_proj"]), "alpha_pattern"),
    "strangers": (adapter(lambda s: s.update({n.replace("0.self", "7.self"): s[n].clone() for n in s})), "nothing has"),
    "nothing beside": (lambda f: (f / "non_lora_trainables.bin").unlink(), "no non_lora_trainables.bin"),
    "beside cut": (lambda f: cut(f / "non_lora_trainables.bin"), "non_lora_trainables.bin: (damaged|cannot be read)"),
    "beside empty": (lambda f: (f / "non_lora_trainables.bin").write_bytes(b""), "damaged"),
    "harmful": (beside({"w": Harmful()}), "more than tensors, which is not safe to open"),
    "other vocabulary": (other_base(spare=3), r"embeddings of 38\d x 32, .* was trained on 38\d x 32.*--base"),
    "other width": (other_base(hidden_size=48), r"embeddings of 38\d x 48, .* trained on 38\d x 32.*--base"),
    "other depth": (other_base(num_hidden_layers=1), "adapters for .*nothing has.*--base"),
    "deeper": (other_base(num_hidden_layers=3), "unread: .*layers.2"),
    "other family": (other_base(family="bunny-qwen2", spare=9), "nothing has.*--base"),
    "no base named": (settings(base_model_name_or_path=None), "what the base model is.*--base"),
    "base elsewhere": (settings(base_model_name_or_path="/models/phi-2"), "`/models/phi-2` is not here.*--base"),
    "base offline": (settings(base_model_name_or_path="microsoft/phi-2"), "microsoft/phi-2.*HF_HUB_OFFLINE.*--base"),
    "base a file": (settings(base_model_name_or_path="base_llm/model.safetensors"), "not the base model's folder"),
    "base without weights": (base(lambda f: (f / "model.safetensors").unlink()), "base_llm: no weights there"),
    "base cut": (base(lambda f: cut(f / "model.safetensors")), "damaged"),
    "a tokenizer of code": (
        base(lambda f: [(f / "tokenizer.json").unlink(), arcade(f)]),
        "no tokenizer.json there, and its tokenizer .Arcade100kTokenizer.",
    ),
}


@pytest.mark.parametrize("case", LORA)
def test_a_lora_folder_that_is_not_right_is_refused_in_one_line(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    twin = make(tmp_path)
    folder = twin.save_lora(tmp_path / "lora", twin.add_adapters(lambda _: 2.0))
    change, why = LORA[case]
    change(folder)
    said = refusal(folder, tmp_path / "out")
    assert re.search(why, said), said
    assert not Path("harm").exists()


TOWERS: dict[str, tuple[Change, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no vision tower can be read there"),
    "config cut": (lambda f: cut(f / "config.json"), "no vision tower can be read there"),
    "no model type": (lambda f: without(f / "config.json", "model_type"), "no model_type"),
    "unknown type": (lambda f: edited(f / "config.json", model_type="beyond"), "no vision tower can be read there"),
    "a language model": (lambda f: edited(f / "config.json", model_type="phi"), "`phi` is no tower of the original"),
    "of code": (
        lambda f: edited(f / "config.json", model_type="x", auto_map={"AutoConfig": "code.Config"}),
        "no vision tower can be read there",
    ),
    "no processor": (lambda f: (f / "preprocessor_config.json").unlink(), "no vision tower can be read there"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights there"),
    "less weights": (weights(lambda s: s.pop(next(n for n in s if "layers.1" in n))), "1 missing"),
    "cut": (lambda f: cut(f / "model.safetensors"), "damaged"),
    "a file": (lambda f: [*(p.unlink() for p in f.iterdir()), f.rmdir(), f.write_text("words")], "tower"),
}


@pytest.mark.parametrize("case", TOWERS)
def test_a_tower_that_is_not_right_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    folder = make(tmp_path).save_projector(tmp_path / "pretrain")
    change, why = TOWERS[case]
    change(tmp_path / "tower")
    said = refusal(folder, tmp_path / "out")
    assert re.search(why, said), said


def test_a_tower_of_another_kind_is_refused_and_its_name_counts_for_nothing(tmp_path: Path) -> None:
    twin = make(tmp_path / "data" / "design")  # "sig" in the path is SigLIP to the original
    other = make(tmp_path / "sig" / "clip", tower="clip")
    folder = twin.save_whole(tmp_path / "data" / "design" / "model")
    said = refusal(folder, tmp_path / "out", vision_tower=str(other.root / "tower"))
    assert "missing" in said
    clip = make(tmp_path / "data" / "eva-siglip", tower="clip")
    import_model(clip.save_whole(tmp_path / "data" / "eva-siglip" / "model"), tmp_path / "out")
    assert difference(clip, tmp_path / "out") < CLOSE


def test_outputs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path).save_whole(tmp_path / "model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "file").touch()
    for out, why in [
        ("full", "something already"),
        ("file", "something already"),
        ("model", "something already"),
        ("model/out", "inside .*model, which is read"),
        ("tower/out", "inside .*tower, which is read"),
        ("file/out", "file"),
    ]:
        with pytest.raises(UserError, match=why) as caught:
            import_model(folder, tmp_path / out)
        assert "-o" in caught.value.fix
    (tmp_path / "empty").mkdir()
    import_model(folder, tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base_llm", "empty", "file", "full", "model", "tower"]


def test_weights_of_two_names_for_one_tensor_are_refused(tmp_path: Path) -> None:
    twin = make(tmp_path)
    folder = twin.save_whole(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    write_weights(folder, state | {"layers.0.mlp.fc1.bias": torch.zeros(48)}, "bin")
    assert "are the same tensor" in refusal(folder, tmp_path / "out")


def test_a_pickled_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path).save_projector(tmp_path / "pretrain")
    file = folder / "mm_projector.bin"
    whole = file.read_bytes()
    for length in (0, 1, 7, 100, len(whole) // 2, len(whole) - 60, len(whole) - 1):
        file.write_bytes(whole[:length])
        said = refusal(folder, tmp_path / "out")
        assert said.startswith(f"{file}: ")
        assert len(said) < 400
