"""Tiny twins of the zoo's backbones: the same kind of model with the same flags, a few thousand weights, random.

In: a published config of `recipes/zoo/backbones.yaml`. Out: a folder (or EVA file) that a recipe can name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bunny.model.language_models import text_config
from bunny.pipeline.zoo import Backbone
from tests.tiny import ENDS, byte_level, metaspace, save_tower

EVA_FILE = Path(__file__).parent / "golden" / "eva" / "EVA02_tiny_42_psz14.pt"
TOWERS = {
    "siglip_vision_model": "siglip",
    "siglip2_vision_model": "siglip",
    "clip_vision_model": "clip",
    "dinov2": "dinov2",
}
SENTENCEPIECE = ("microsoft/Phi-3-mini-4k-instruct", "microsoft/Phi-3.5-mini-instruct", "openbmb/MiniCPM-2B-history")
"""Language models whose tokenizer puts a blank before every text; the others' is byte-level."""

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HEAD_WIDTH = 16


def save_language_model(folder: Path, name: str, backbone: Backbone, template_text: str, spare_rows: int = 8) -> Path:
    """A folder with the twin of a language model and a tokenizer that knows the template's special tokens.

    Like most published ones it has more rows than its tokenizer has words.
    """
    marks = re.findall(r"<[^<>\s]+>", template_text)
    tokenizer = metaspace() if name in SENTENCEPIECE else byte_level(tuple(dict.fromkeys([*ENDS, *marks])))
    tokenizer.add_tokens(marks, special_tokens=True)
    tokenizer.chat_template = CHATML
    fields = shrunk(backbone.config, len(tokenizer) + spare_rows)
    torch.manual_seed(0)
    config = text_config(fields)
    config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
    config.bos_token_id = tokenizer.bos_token_id
    model = AutoModelForCausalLM.from_config(config)
    for key, parameter in model.named_parameters():
        if "norm" not in key:
            parameter.data.normal_(std=0.2)
    if (bias := model.get_output_embeddings().bias) is not None:
        bias.data.zero_()  # Phi's, which the original Bunny drops
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if config.model_type != fields["model_type"]:  # published under a name transformers does not know
        ends = {key: getattr(config, key) for key in ("eos_token_id", "pad_token_id", "bos_token_id")}
        (folder / "config.json").write_text(json.dumps(fields | ends))
    return folder


def shrunk(config: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    """The published fields, with small sizes: heads share keys as they did, every kind of layer is there."""
    fields = dict(config)
    heads = config["num_attention_heads"]
    group = heads // config.get("num_key_value_heads", heads)
    small_heads = 4 if 4 % group == 0 else group
    hidden = HEAD_WIDTH * small_heads
    fields |= {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": hidden + HEAD_WIDTH,
        "num_attention_heads": small_heads,
        "num_hidden_layers": 2,
    }
    if "num_key_value_heads" in config:
        fields["num_key_value_heads"] = small_heads // group
    if "head_dim" in config:
        whole = config["head_dim"] * heads
        wider = (whole > config["hidden_size"]) - (whole < config["hidden_size"])
        fields["head_dim"] = HEAD_WIDTH + 8 * wider
    if config.get("sliding_window", 0) and config["sliding_window"] < config["max_position_embeddings"]:
        fields["sliding_window"] = 8
    if "dim_model_base" in config:
        fields["dim_model_base"] = hidden // (config["hidden_size"] // config["dim_model_base"])
    whole_config = text_config(config)
    kinds = dict.fromkeys(getattr(whole_config, "layer_types", None) or ())
    if kinds:
        fields["layer_types"] = [next(iter(kinds)), list(kinds)[-1]]
        fields.pop("sliding_window_pattern", None)
    if getattr(whole_config, "no_rope_layers", None):
        fields["no_rope_layers"] = [1, 0]
    if "short_factor" in config.get("rope_scaling", {}):
        turned = int(HEAD_WIDTH * config.get("partial_rotary_factor", 1.0)) // 2
        scaling = config["rope_scaling"]
        cut = {key: scaling[key][:: len(scaling[key]) // turned][:turned] for key in ("short_factor", "long_factor")}
        fields["rope_scaling"] = scaling | cut
    return fields


def save_vision_tower(folder: Path, backbone: Backbone) -> Path:
    """The twin of a vision tower: a folder for 32 px pictures, or the tiny file that EVA's own code wrote."""
    kind = backbone.config["model_type"]
    return EVA_FILE if kind == "eva02_vision" else save_tower(folder, TOWERS[kind])
