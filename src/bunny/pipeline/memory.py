"""How much GPU memory a recipe of the zoo is likely to take: estimates from sizes alone, nothing is loaded.

In: counts of parameters and the fields of a published config.json. Out: bytes. All formulas of such estimates stand
here. They leave out what the driver and the allocator take (about 1 GB), and sharding, which lowers all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bunny.core.recipe import StageSection

BF16, FP32 = 2, 4
LEARNT = 4 * FP32  # a weight that learns: itself, its gradient and AdamW's two moments
FROZEN = FP32  # a weight that does not learn, as training loads it
CONTEXT = 2048  # tokens of an answer's whole context
LOGIT_ROWS = 2048  # positions whose logits are in memory at once, as in `model.modeling`


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the estimates need of a model: parameters of its parts, and both published configurations.

    adapter_sides: inputs + outputs summed over the language model's linear layers. squares: pictures that the tower
    sees per picture (S2: one per square of every scale).
    """

    language_model: int
    tower: int
    projector: int
    adapter_sides: int
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    squares: int = 1

    @property
    def parameters(self) -> int:
        """All of the model's."""
        return self.language_model + self.tower + self.projector


def to_run(sizes: Sizes) -> int:
    """Bytes to answer about one picture in bfloat16: weights, keys and values of 2048 tokens, one layer at work."""
    text = sizes.text
    heads = text["num_attention_heads"]
    key_width = text.get("num_key_value_heads", heads) * text.get("head_dim", text["hidden_size"] // heads)
    cache = 2 * text["num_hidden_layers"] * key_width * CONTEXT * BF16
    work = max(_layer(text, CONTEXT), _tower_layer(sizes)) + text["vocab_size"] * FP32
    return int(sizes.parameters * BF16 + cache + work)


def to_train(sizes: Sizes, section: StageSection) -> int:
    """Bytes on one GPU for one row of `max_length` tokens at a time, with activations recomputed layer by layer.

    Weights: 16 bytes for each that learns, 4 for each that does not; LoRA of rank r adds r * `adapter_sides` that
    learn. Activations, bfloat16: the input of every layer, one layer at work, and the logits with their gradient.
    """
    parts = {
        "language_model": (section.language_model == "full", sizes.language_model),
        "tower": (section.vision_tower == "train", sizes.tower),
        "projector": (section.projector == "train", sizes.projector),
    }
    weights = sum(count * (LEARNT if learns else FROZEN) for learns, count in parts.values())
    if section.language_model == "lora":
        weights += section.lora.r * sizes.adapter_sides * LEARNT
    text, tokens = sizes.text, section.max_length
    kept = text["num_hidden_layers"] * tokens * text["hidden_size"] * BF16
    if section.vision_tower == "train":
        vision = sizes.vision
        kept += vision["num_hidden_layers"] * _patches(sizes) * vision["hidden_size"] * BF16
    logits = min(tokens, LOGIT_ROWS) * text["vocab_size"] * (BF16 + 2 * FP32)
    return int(weights + kept + max(_layer(text, tokens), _tower_layer(sizes), logits))


def projector_parameters(kind: str, width_in: int, width_out: int) -> int:
    """Weights of a projector: N linear layers for mlpNx, one for linear; two, the usual number, for any other kind."""
    found = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    layers = int(found.group(1)) if found else {"linear": 1, "identity": 0}.get(kind, 2)
    if not layers:
        return 0
    return (width_in + 1) * width_out + (layers - 1) * (width_out + 1) * width_out


def squares(scales: tuple[int, ...]) -> int:
    """Pictures that a tower sees for one picture at these S2 scales: 1 + 4 + 9 for a side, twice and three times it."""
    return sum((scale // scales[0]) ** 2 for scale in scales) if scales else 1


def _layer(config: Mapping[str, Any], tokens: int) -> int:
    """Bytes of one layer at work: about eight hidden states and three of the MLP's, bfloat16."""
    inner = config.get("intermediate_size", config["hidden_size"] * config.get("mlp_ratio", 4))
    return int(tokens * (8 * config["hidden_size"] + 3 * inner) * BF16)


def _tower_layer(sizes: Sizes) -> int:
    return _layer(sizes.vision, _patches(sizes))


def _patches(sizes: Sizes) -> int:
    """Patches that the tower sees per picture."""
    return int((sizes.vision["image_size"] // sizes.vision["patch_size"]) ** 2) * sizes.squares
