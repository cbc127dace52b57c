"""The vision tower and projector of a Bunny as a GGUF file: what llama.cpp calls mmproj.

In: `Opened`. Out: the file, in f16. llama.cpp derives from a projector's name how pictures are prepared: `janus_pro`
runs a SigLIP and pads with grey 127, which is `int(0.5 * 255)`, the mean that SigLIP subtracts; `mlp` runs a CLIP and
pads with CLIP's mean. Both compute the same two layers. Blocks behind the chosen layer and norms behind the last block
are not written: a Bunny does not use them.
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

GREY = [0.5, 0.5, 0.5]
CLIP_GREY = [122, 116, 104]
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
    "embeddings.class_embedding": "v.class_embd",
    "pre_layrnorm.weight": "v.pre_ln.weight",
    "pre_layrnorm.bias": "v.pre_ln.bias",
}
"""What stands before the blocks. (`pre_layrnorm` is spelt so in transformers.)"""

PROJECTORS = {"siglip_vision_model": ("janus_pro", 1), "clip_vision_model": ("mlp", 2)}
"""Tower -> (llama.cpp's projector, the number its second layer has there)."""

WHOLE = ("v.position_embd.weight", "v.class_embd", "v.patch_embd.weight")
"""Small tensors that stay in float32."""


def write_vision(opened: Opened, path: Path) -> list[str]:
    """Write the file; returns what a user has to know of how pictures are prepared, one line each."""
    model = stock(opened, opened.words)
    vision = opened.config.vision_config
    if vision.model_type not in PROJECTORS:
        what = f"{opened.folder}: llama.cpp cannot run a `{vision.model_type}` behind this projector"
        raise UserError(what, fix="`--to llava` can express it")
    kind, second = PROJECTORS[vision.model_type]
    blocks = _blocks(opened)
    names = {new: old for old, new in FRONT.items() if old in model.tower.info}
    for block in range(blocks):
        for old, new in BLOCK.items():
            for end in ("weight", "bias"):
                names[f"v.blk.{block}.{new}.{end}"] = f"encoder.layers.{block}.{old}.{end}"
    layers = {f"mm.{number}.{end}": f"{name}{end}" for number, name in ((0, FIRST), (second, SECOND)) for end in ENDS}
    table: TensorTable = Joined([Renamed(model.tower, names), Renamed(model.projector, layers)])
    kinds = {name: "f32" if len(info.shape) < 2 or name in WHOLE else "f16" for name, info in table.info.items()}
    write_gguf(path, "clip", _settings(opened, kind, blocks), table, kinds, "writing tower and projector (MB)")
    return _notes(opened, kind)


ENDS = ("weight", "bias")


def _blocks(opened: Opened) -> int:
    """Blocks before the chosen layer."""
    layer, depth = opened.config.vision_feature_layer, opened.config.vision_config.num_hidden_layers
    return int(depth + 1 + layer if layer < 0 else layer)


def _settings(opened: Opened, kind: str, blocks: int) -> dict[str, Any]:
    vision, pictures = opened.config.vision_config, opened.processor["image_processor"]
    activation = vision.hidden_act
    if activation not in ("gelu", "gelu_pytorch_tanh", "quick_gelu"):
        raise UserError(f"{opened.folder}: llama.cpp's towers have no `{activation}`")
    found = {
        "clip.has_vision_encoder": True,
        "clip.projector_type": kind,
        "clip.use_gelu": activation != "quick_gelu",
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
    if kind == "mlp":  # else the block before the last would be taken
        found |= {"clip.vision.feature_layer": [blocks], "clip.has_llava_projector": True}
    return found


def _notes(opened: Opened, kind: str) -> list[str]:
    """Where llama.cpp prepares pictures otherwise than the model was trained, and what to do about it."""
    mean = opened.processor["image_processor"]["image_mean"]
    colour = [127] * 3 if kind == "janus_pro" else CLIP_GREY
    if opened.processor.get("image_aspect", "pad") != "pad":
        return ["llama.cpp pads pictures to a square, this model was trained on squashed ones: resize them beforehand"]
    if [int(value * 255) for value in mean] != colour:
        return [f"llama.cpp pads with the colour {colour}, this model with its mean {mean}: pad pictures beforehand"]
    return []
