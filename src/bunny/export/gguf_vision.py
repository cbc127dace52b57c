"""The vision tower and projector of a Bunny as a GGUF file: what llama.cpp calls mmproj.

In: `Opened`. Out: the file, in f16. llama.cpp derives from a projector's name how pictures are prepared: `janus_pro`
runs a SigLIP and pads with grey 127, which is `int(0.5 * 255)`, the mean that SigLIP subtracts. Blocks behind the
chosen layer and norms behind the last block are not written: a Bunny does not use them.

CLIP towers are refused. llama.cpp has a graph for them (`mlp`), but it appends the class token behind the patches, adds
the positions as if it stood before them, and then leaves out the first place: a patch is lost and the class token seen.
(Read in, and measured with, llama-cpp-python 0.3.36: embeddings off by six tenths.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.export.gguf_file import FILE_TYPES, write_gguf
from bunny.export.opened import Opened
from bunny.export.stock import FIRST, SECOND, stock
from bunny.model.tensor_views import Renamed
from bunny.model.tensors import Joined, TensorTable

GREY = 127  # of llama.cpp's padding
BLOCK = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
"""Parts of a block: transformers' name -> GGUF's."""

FRONT = {
    "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.patch_embedding.bias": "v.patch_embd.bias",
    "embeddings.position_embedding.weight": "v.position_embd.weight",
}
"""What stands before the blocks."""

TOWER, PROJECTOR, LAYERS = "siglip_vision_model", "janus_pro", {"mm.0.": FIRST, "mm.1.": SECOND}
"""The tower that llama.cpp runs as a Bunny does, its name there for the projector, and of the projector's layers."""

WHOLE = ("v.position_embd.weight", "v.patch_embd.weight")
"""Small tensors that stay in float32."""


def write_vision(opened: Opened, path: Path) -> list[str]:
    """Write the file; returns what a user has to know of how pictures are prepared, one line each."""
    model = stock(opened, opened.words)
    check_tower(opened)
    blocks = _blocks(opened)
    names = {new: old for old, new in FRONT.items() if old in model.tower.info}
    for block in range(blocks):
        for old, new in BLOCK.items():
            for end in ("weight", "bias"):
                names[f"v.blk.{block}.{new}.{end}"] = f"encoder.layers.{block}.{old}.{end}"
    layers = {new + end: old + end for new, old in LAYERS.items() for end in ("weight", "bias")}
    table: TensorTable = Joined([Renamed(model.tower, names), Renamed(model.projector, layers)])
    kinds = {name: "f32" if len(info.shape) < 2 or name in WHOLE else "f16" for name, info in table.info.items()}
    write_gguf(path, "clip", _settings(opened, blocks), table, kinds, "writing tower and projector (MB)")
    return _notes(opened)


def check_tower(opened: Opened) -> None:
    """Raise UserError for a tower that llama.cpp does not run as a Bunny does."""
    kind = opened.config.vision_config.model_type
    if kind != TOWER:
        name = kind.split("_")[0]
        raise UserError(
            f"{opened.folder}: llama.cpp cannot run its `{name}` tower rightly", fix="`--to llava` can say it"
        )


def _blocks(opened: Opened) -> int:
    """Blocks before the chosen layer."""
    layer, depth = opened.config.vision_feature_layer, opened.config.vision_config.num_hidden_layers
    return int(depth + 1 + layer if layer < 0 else layer)


def _settings(opened: Opened, blocks: int) -> dict[str, Any]:
    vision, pictures = opened.config.vision_config, opened.processor["image_processor"]
    activation = vision.hidden_act
    if activation not in ("gelu", "gelu_pytorch_tanh"):
        raise UserError(f"{opened.folder}: llama.cpp's towers have no `{activation}`")
    return {
        "clip.has_vision_encoder": True,
        "clip.projector_type": PROJECTOR,
        "clip.use_gelu": True,
        "clip.vision.image_size": int(vision.image_size),
        "clip.vision.patch_size": int(vision.patch_size),
        "clip.vision.embedding_length": int(vision.hidden_size),
        "clip.vision.feed_forward_length": int(vision.intermediate_size),
        "clip.vision.projection_dim": int(opened.config.text_config.hidden_size),
        "clip.vision.attention.head_count": int(vision.num_attention_heads),
        "clip.vision.attention.layer_norm_epsilon": float(vision.layer_norm_eps),
        "clip.vision.block_count": blocks,
        "clip.vision.image_mean": [float(value) for value in pictures["image_mean"]],
        "clip.vision.image_std": [float(value) for value in pictures["image_std"]],
        "general.name": f"{opened.folder.resolve().name} (vision)",
        "general.file_type": FILE_TYPES["f16"],
    }


def _notes(opened: Opened) -> list[str]:
    """Where llama.cpp prepares pictures otherwise than the model was trained, and what to do about it."""
    mean = opened.processor["image_processor"]["image_mean"]
    if opened.processor.get("image_aspect", "pad") != "pad":
        return ["llama.cpp pads pictures to a square, this model was trained on squashed ones: resize them beforehand"]
    if [int(value * 255) for value in mean] != [GREY] * 3:
        return [f"llama.cpp pads with grey {GREY}, this model with its mean {mean}: pad pictures beforehand"]
    return []
