"""Language-model families as llama.cpp knows them: its name of each, and its settings out of a configuration.

In: a `transformers` configuration and the tensors' names. Out: `Family`, settings by GGUF key, and tensors that follow
from the configuration. The facts are those of llama.cpp's own loaders; what they have no word for is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bunny.core.errors import UserError

Value = int | float | bool | str


@dataclass(frozen=True, slots=True)
class Family:
    """arch: llama.cpp's name. interleaved: whether it turns neighbouring channels together, where transformers turns
    the halves of a head: the rows of q and k then change their order. biased_head: whether it asks for a head's bias.
    untied_head: whether it asks for a head of its own even where embedding and head are one."""

    arch: str
    interleaved: bool = False
    biased_head: bool = False
    untied_head: bool = False


FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", interleaved=True),
    "phi": Family("phi2", biased_head=True, untied_head=True),
    "phi3": Family("phi3"),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "stablelm": Family("stablelm", untied_head=True),
    "smollm3": Family("smollm3", interleaved=True),
    "olmo2": Family("olmo2", untied_head=True),
}
"""transformers' model type -> llama.cpp's family. Granite and MiniCPM come as Llama (`stock.py`)."""


def family_of(text: Any, where: str) -> Family:
    """The family of a configuration. Raises UserError for one that llama.cpp, or this writer, does not have."""
    if text.model_type not in FAMILIES:
        known = ", ".join([*FAMILIES, "granite", "minicpm"])
        fix = f"its families here: {known}; `--to llava` has more"
        raise UserError(f"{where}: `{text.model_type}` cannot be written as GGUF", fix=fix)
    if getattr(text, "qk_layernorm", False):
        raise UserError(f"{where}: a `{text.model_type}` with norms on q and k cannot be written as GGUF")
    if text.model_type == "smollm3" and text.no_rope_layers != [
        (layer + 1) % 4 != 0 for layer in range(text.num_hidden_layers)
    ]:
        raise UserError(f"{where}: llama.cpp leaves positions out of every fourth layer, this model of others")
    return FAMILIES[text.model_type]


def head_dim(text: Any) -> int:
    """Channels of one attention head."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def window(text: Any) -> int:
    """Tokens that a token attends to, where that is limited, else 0. llama.cpp runs these families without a limit."""
    size = int(getattr(text, "sliding_window", None) or 0)
    kinds = getattr(text, "layer_types", None) or ()
    limited = text.model_type == "phi3" or "sliding_attention" in kinds
    return size if limited and size < text.max_position_embeddings else 0


def settings(text: Any, family: Family) -> dict[str, Value]:
    """GGUF key without the family's prefix -> value."""
    rope = dict(text.rope_parameters)
    heads = int(text.num_attention_heads)
    found: dict[str, Value] = {
        "block_count": int(text.num_hidden_layers),
        "context_length": min(int(text.max_position_embeddings), window(text) or int(text.max_position_embeddings)),
        "embedding_length": int(text.hidden_size),
        "feed_forward_length": int(text.intermediate_size),
        "attention.head_count": heads,
        "attention.head_count_kv": int(getattr(text, "num_key_value_heads", None) or heads),
        "attention.key_length": head_dim(text),
        "attention.value_length": head_dim(text),
        "vocab_size": int(text.vocab_size),
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": int(head_dim(text) * float(rope.get("partial_rotary_factor", 1.0))),
    }
    for field, key in (("rms_norm_eps", "layer_norm_rms_epsilon"), ("layer_norm_eps", "layer_norm_epsilon")):
        if hasattr(text, field):
            found[f"attention.{key}"] = float(getattr(text, field))
    if text.model_type == "stablelm":
        found["use_parallel_residual"] = bool(text.use_parallel_residual)
    if text.model_type == "phi3":
        found["attention.sliding_window"] = int(text.sliding_window or 0)
    return found | _scaling(text, rope)


def _scaling(text: Any, rope: Mapping[str, Any]) -> dict[str, Value]:
    """Settings of stretched positions. Raises UserError for a kind that llama.cpp reads otherwise."""
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(rope["factor"]),
            "rope.scaling.original_context_length": int(rope["original_max_position_embeddings"]),
        }
    if kind == "longrope":
        original = _original_length(text, rope)
        stretch = text.max_position_embeddings / original
        weight = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
        return {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": original,
            "rope.scaling.attn_factor": float(rope.get("attention_factor") or weight),
        }
    if kind not in ("default", "llama3"):
        raise UserError(f"positions stretched by `{kind}` cannot be written as GGUF")
    return {"rope.scaling.original_context_length": _original_length(text, rope)} if text.model_type == "phi3" else {}


def _original_length(text: Any, rope: Mapping[str, Any]) -> int:
    found = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None)
    return int(found or text.max_position_embeddings)


def derived(text: Any) -> dict[str, torch.Tensor]:
    """Tensors that llama.cpp keeps in the file and transformers computes by itself: GGUF name -> float32."""
    rope = dict(text.rope_parameters)
    kind = rope.get("rope_type", "default")
    if kind == "llama3":
        return {"rope_freqs.weight": _llama3_factors(text, rope)}
    if kind == "longrope":
        return {
            f"rope_factors_{length}.weight": torch.tensor(rope[f"{length}_factor"], dtype=torch.float32)
            for length in ("long", "short")
        }
    return {}


def _llama3_factors(text: Any, rope: Mapping[str, Any]) -> torch.Tensor:
    """By what each pair of channels turns slower (head_dim / 2,): plain frequencies over transformers' own."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    stretched, _ = ROPE_INIT_FUNCTIONS["llama3"](text, torch.device("cpu"))
    size = head_dim(text)
    plain = 1.0 / float(rope["rope_theta"]) ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    factors: torch.Tensor = (plain / stretched.double()).float()
    return factors
