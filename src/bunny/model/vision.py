"""Vision towers: a folder, a hub name, an EVA `.pt` file or `bundled:` name becomes a tower and its image processor.

In: the recipe's reference. Out: (tower without the blocks nobody reads, image processor). A tensor that is missing, or
that nobody reads, is an error; what is left out on purpose (dead last block, pooling head, text half) is named below.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from bunny.core.errors import UserError
from bunny.model import quiet
from bunny.model.bundled import resolve
from bunny.model.loading import nothing_lost, reading

DEAD_LAYER_TOWERS = ("siglip_vision_model", "siglip2_vision_model", "clip_vision_model")
"""Towers whose last block the original never reads (hidden_states[-2]): it is left out instead of thrown away."""

OTHER_HALF = re.compile(r"^(text_model|logit_scale|logit_bias|text_projection|visual_projection)\b|(^|\.)head\.")
"""Tensors of a SigLIP or CLIP folder that its vision tower does not have: the text half and the pooling head."""


def load_tower(reference: str, image_size: int | None = None) -> tuple[Any, Any]:
    """(vision tower without a dead last layer, image processor) of a folder, hub name, EVA `.pt` or `bundled:` name."""
    quiet()
    if reference.endswith(".pt"):
        from bunny.model.eva import load_eva

        tower, processor = load_eva(reference)
    else:
        tower, processor = _from_folder(reference)
    side = picture_side(processor)
    if image_size is not None and image_size != side:
        raise UserError(f"{reference} takes {side} px, not {image_size}", fix="leave image_size out")
    return tower.eval(), processor


def _from_folder(reference: str) -> tuple[Any, Any]:
    folder = resolve(reference)
    with reading(reference):
        config = vision_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        tower, info = AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    unread = [key for key in info["unexpected_keys"] if not left_on_purpose(key, config)]
    nothing_lost(reference, info | {"unexpected_keys": unread})
    return tower, processor


def vision_config(config: Any) -> Any:
    """The vision half of a configuration, without the block and the head that no picture token depends on."""
    config = getattr(config, "vision_config", config)
    if config.model_type in DEAD_LAYER_TOWERS:
        config.num_hidden_layers -= 1
        config.vision_use_head = False
    return config


def left_on_purpose(key: str, config: Any) -> bool:
    """Whether a tensor of the folder belongs to what a tower leaves out: dead layer, pooling head, text half."""
    if OTHER_HALF.search(key):
        return True
    block = re.search(r"\.layers\.(\d+)\.", key)
    if block is None or config.model_type not in DEAD_LAYER_TOWERS:
        return False
    return int(block.group(1)) >= int(config.num_hidden_layers)


def check_layer(tower: Any, layer: int, reference: str) -> None:
    """Raise UserError if the tower has no such `vision_feature_layer`."""
    blocks = getattr(tower.config, "num_hidden_layers", 0)  # a convolutional tower has its last grid only
    if not -blocks - 1 <= layer <= blocks:
        raise UserError(
            f"vision_feature_layer={layer}: {reference} has {blocks} blocks here",
            fix=f"choose from {-blocks - 1} to {blocks}",
        )


def tokens_of(config: Any, side: int) -> tuple[str, int]:
    """(`default` if class or register tokens come before the patches, else `full`; patches of a `side` px square)."""
    with torch.device("meta"):  # shapes only
        twin = AutoModel.from_config(config).to("meta")  # tables that a tower computes itself may stand elsewhere
        states = twin(torch.empty(1, 3, side, side), output_hidden_states=True).hidden_states
    patches = (side // config.patch_size) ** 2
    return "full" if states[-1].shape[1] == patches else "default", patches


def picture_side(image_processor: Any) -> int:
    """Pixels of the square that comes out of an image processor; DINOv2's is not its config's `image_size`."""
    settings = image_processor.to_dict()
    size = settings["crop_size" if settings.get("do_center_crop") else "size"]
    return int(size.get("height") or size["shortest_edge"])


def set_scales(image_processor: Any, scales: Sequence[int]) -> None:
    """Let pictures come out at the largest of the S2 scales. Raises UserError if they do not fit the tower."""
    side = picture_side(image_processor)
    if scales[0] != side or any(scale % side for scale in scales) or list(scales) != sorted(set(scales)):
        raise UserError(
            f"s2_scales {list(scales)}: the tower takes {side} px",
            fix=f"give {side} first, then larger multiples of it, e.g. [{side}, {2 * side}, {3 * side}]",
        )
    largest = scales[-1]
    if getattr(image_processor, "do_center_crop", False):
        image_processor.crop_size = {"height": largest, "width": largest}
        image_processor.size = {"shortest_edge": largest}
    else:
        image_processor.size = {"height": largest, "width": largest}
