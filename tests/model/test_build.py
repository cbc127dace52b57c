"""Tiny folders of real architectures become one Bunny; what is saved loads again, whole, with stock transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.model.build import build, load, load_projector, with_fresh_projector
from bunny.model.vision import load_tower
from bunny.text.template import Template
from tests.original_folders import with_text_half
from tests.tiny import byte_level, save_language_model, save_tower

TEMPLATE = Template.named("chatml")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of each tower and language model."""
    folder = tmp_path_factory.mktemp("parts")
    for kind in ("siglip", "clip", "dinov2"):
        save_tower(folder / kind, kind)
    for family in ("llama", "qwen2", "phi"):
        save_language_model(folder / family, family)
    return folder


def built(parts: Path, tower: str = "siglip", family: str = "llama", **more: Any) -> tuple[Any, Any]:
    section = ModelSection(language_model=str(parts / family), vision_tower=str(parts / tower), **more)
    return build(section, TEMPLATE.model_dump(), TEMPLATE.jinja(), seed=0)


def picture(seed: int = 0, size: tuple[int, int] = (40, 24)) -> Image.Image:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def asked(processor: Any, text: str = "what is this?") -> Any:
    talk = [{"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": text}]}]
    return processor.apply_chat_template(
        talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def logits(model: Any, inputs: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(**inputs).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("tower", ["siglip", "clip", "dinov2"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi"])
def test_saved_and_loaded_gives_the_same_logits(parts: Path, tmp_path: Path, tower: str, family: str) -> None:
    model, processor = built(parts, tower, family)
    before = logits(model, asked(processor))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert list(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob("*.bin"))
    again, its_processor = load(tmp_path)
    torch.testing.assert_close(logits(again, asked(its_processor)), before, rtol=0, atol=0)
    assert its_processor.template == processor.template


@pytest.mark.parametrize("tower", ["siglip", "clip", "dinov2"])
def test_one_token_per_patch_and_no_class_token(parts: Path, tower: str) -> None:
    model, _ = built(parts, tower)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = model.model.tower_features(pixels)
        last = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    assert features.shape == (2, 16, 16)
    assert model.config.image_seq_length == 16
    torch.testing.assert_close(features, last[:, -16:], rtol=0, atol=0)
    assert model.config.vision_feature_select_strategy == ("full" if tower == "siglip" else "default")


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_the_trimmed_tower_equals_the_whole_ones_last_but_one_layer(parts: Path, kind: str) -> None:
    tower, _ = load_tower(str(parts / kind))
    whole = AutoModel.from_pretrained(parts / kind).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = tower(pixels, output_hidden_states=True).hidden_states[-1]
        theirs = whole(pixels, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert tower.config.num_hidden_layers == whole.config.num_hidden_layers - 1


def test_the_tower_of_a_whole_clip_is_its_vision_half(parts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(parts / "clip", tmp_path / "clip"))
    with_text_half(folder)
    alone, whole = (load_tower(str(place))[0].state_dict() for place in (parts / "clip", folder))
    assert alone.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in alone.items())


def test_a_tower_asked_for_other_pixels_than_its_own_says_so(parts: Path) -> None:
    with pytest.raises(UserError, match="takes 32 px, not 64; leave image_size out"):
        load_tower(str(parts / "siglip"), image_size=64)


def spoilt(parts: Path, tmp_path: Path, kind: str, change: Any) -> Path:
    """A copy of a part's folder with changed weights."""
    folder = Path(shutil.copytree(parts / kind, tmp_path / kind))
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def drop(ending: str) -> Any:
    def change(state: dict[str, torch.Tensor]) -> None:
        (name,) = [name for name in state if name.endswith(ending)]
        del state[name]

    return change


def add(state: dict[str, torch.Tensor]) -> None:
    state["stranger.weight"] = torch.zeros(2)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("siglip", drop("layers.0.mlp.fc1.weight"), "1 missing keys: .*fc1.weight"),
        ("siglip", add, "1 unexpected keys: stranger.weight"),
        ("dinov2", add, "1 unexpected keys: stranger.weight"),
        ("llama", drop("layers.1.mlp.up_proj.weight"), "1 missing keys: .*up_proj.weight"),
        ("llama", add, "1 unexpected keys: stranger.weight"),
    ],
)
def test_a_missing_or_unread_tensor_of_a_part_is_an_error(
    parts: Path, tmp_path: Path, kind: str, change: Any, message: str
) -> None:
    folder = spoilt(parts, tmp_path, kind, change)
    which = "vision_tower" if kind in ("siglip", "dinov2") else "language_model"
    section = ModelSection(
        **{"language_model": str(parts / "llama"), "vision_tower": str(parts / "siglip"), which: str(folder)}
    )
    with pytest.raises(UserError, match=message) as error:
        build(section, TEMPLATE.model_dump(), TEMPLATE.jinja(), seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [add, drop("projector.0.weight")])
def test_a_missing_or_unread_tensor_of_a_saved_bunny_is_an_error(parts: Path, tmp_path: Path, change: Any) -> None:
    model, processor = built(parts)
    model.save_pretrained(tmp_path / "whole")
    processor.save_pretrained(tmp_path / "whole")
    folder = spoilt(tmp_path, tmp_path / "spoilt", "whole", change)
    with pytest.raises(UserError, match=r"1 (missing|unexpected) keys"):
        load(folder)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model there") as error:
        load(tmp_path / "nowhere")
    assert "\n" not in str(error.value)
    section = ModelSection(language_model=str(tmp_path / "x"), vision_tower=str(tmp_path / "y"))
    with pytest.raises(UserError, match=r"cannot load .*/y") as error:
        build(section, {}, "", 0)
    assert "\n" not in str(error.value)


def test_a_fresh_model_depends_on_the_seed_alone(parts: Path) -> None:
    torch.manual_seed(5)
    one = built(parts)[0].state_dict()
    torch.manual_seed(6)
    two = built(parts)[0].state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_untrained_twin_shares_everything_but_the_projector(parts: Path) -> None:
    model, _ = built(parts)
    twin = with_fresh_projector(model, seed=9)
    mine, its = dict(model.named_parameters()), dict(twin.named_parameters())
    other = {name for name in mine if mine[name] is not its[name]}
    assert other == {name for name in mine if "multi_modal_projector" in name}
    assert not torch.equal(mine["model.multi_modal_projector.0.weight"], its["model.multi_modal_projector.0.weight"])


def test_a_projector_of_another_shape_is_refused(parts: Path, tmp_path: Path) -> None:
    model, _ = built(parts)
    save_file({"0.weight": torch.zeros(3, 3)}, tmp_path / "p.safetensors")
    with pytest.raises(UserError, match="do not fit"):
        load_projector(model, tmp_path / "p.safetensors")
    (tmp_path / "q.safetensors").write_text("nothing")
    with pytest.raises(UserError, match="no readable projector"):
        load_projector(model, tmp_path / "q.safetensors")


@pytest.fixture(scope="module")
def saved(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bunny")
    model, processor = built(parts)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_the_auto_classes_open_it(saved: Path) -> None:
    assert type(AutoConfig.from_pretrained(saved)).__name__ == "BunnyConfig"
    model = AutoModelForImageTextToText.from_pretrained(saved, device_map="cpu")
    processor = AutoProcessor.from_pretrained(saved)
    assert (type(model).__name__, type(processor).__name__) == ("BunnyForConditionalGeneration", "BunnyProcessor")
    inputs = asked(processor)
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 16
    out = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert 1 <= out.shape[1] - inputs["input_ids"].shape[1] <= 3


def test_the_pipeline_answers(saved: Path) -> None:
    ask = pipeline("image-text-to-text", model=str(saved), device="cpu")
    talk = [{"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "what?"}]}]
    (out,) = ask(text=talk, return_full_text=False, generate_kwargs={"max_new_tokens": 3, "do_sample": False})
    assert isinstance(out["generated_text"], str)


def test_a_fresh_process_needs_only_import_bunny(saved: Path) -> None:
    code = (
        "import sys, bunny\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "from transformers import AutoModelForImageTextToText, AutoProcessor\n"
        f"print(type(AutoModelForImageTextToText.from_pretrained({str(saved)!r})).__name__,"
        f" type(AutoProcessor.from_pretrained({str(saved)!r})).__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["BunnyForConditionalGeneration", "BunnyProcessor"], ran.stderr[-2000:]


def test_peft_wraps_and_loads_it(saved: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    model, processor = load(saved)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    wanted = logits(adapted.eval(), asked(processor))
    adapted.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(load(saved)[0], tmp_path).eval()
    torch.testing.assert_close(logits(again, asked(processor)), wanted)


def test_beams_with_several_pictures_in_a_row_see_their_own_pictures(saved: Path) -> None:
    model, processor = load(saved)
    pictures = [picture(1), picture(2), picture(3)]
    texts = ["<image><image>\nsame?", "<image>\nwhat is in the picture?"]
    processor.tokenizer.padding_side = "left"
    both = processor(images=[pictures[:2], pictures[2:]], text=texts, return_tensors="pt", padding=True)
    kind = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False}
    together = model.generate(**both, **kind)[:, both["input_ids"].shape[1] :]
    for number, some in enumerate((pictures[:2], pictures[2:])):
        one = processor(images=some, text=texts[number], return_tensors="pt")
        alone = model.generate(**one, **kind)[0, one["input_ids"].shape[1] :]
        assert together[number][: len(alone)].tolist() == alone.tolist()


def test_the_image_token_renames_a_reserved_one(parts: Path, tmp_path: Path) -> None:
    tokenizer = byte_level(("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<reserved_0>"))
    save_language_model(tmp_path / "lm", tokenizer=tokenizer)
    section = ModelSection(language_model=str(tmp_path / "lm"), vision_tower=str(parts / "siglip"))
    model, processor = build(section, TEMPLATE.model_dump(), TEMPLATE.jinja(), seed=0)
    assert model.config.image_token_id == tokenizer.convert_tokens_to_ids("<reserved_0>")
    assert model.lm_head.out_features == len(tokenizer) == len(processor.tokenizer)
    assert processor.tokenizer("<image>").input_ids == [model.config.image_token_id]


def test_an_added_image_token_leaves_all_other_logits_alone_and_is_never_generated(parts: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, processor = built(parts)
    plain = AutoModelForCausalLM.from_pretrained(parts / "llama").eval()
    image = model.config.image_token_id
    assert image == plain.config.vocab_size
    ids = torch.tensor([processor.tokenizer("is there a circle?").input_ids])
    wanted = logits(plain, {"input_ids": ids})
    torch.testing.assert_close(logits(model, {"input_ids": ids})[..., :image], wanted, rtol=0, atol=0)
    with torch.no_grad():
        model.lm_head.weight[image] = 100 * model.lm_head.weight[:image].mean(0)
    out = model.generate(input_ids=ids, max_new_tokens=20, do_sample=False)
    assert image not in out[0].tolist()


def test_the_saved_configuration_names_no_folder_of_the_machine_that_built_it(parts: Path, saved: Path) -> None:
    for path in saved.glob("*.json"):
        assert str(parts) not in path.read_text(encoding="utf-8"), path.name
    assert json.loads((saved / "config.json").read_text())["model_type"] == "bunny"
