"""Shared beginnings change no answer, whatever a language model does with positions and windows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3NextConfig,
)

from bunny.core.recipe import ModelSection
from bunny.core.types import GenerationSettings, Turn
from bunny.infer import prefix
from bunny.infer.generate import Generator, Request
from bunny.model.build import build
from bunny.text.template import Template
from tests.infer.test_generate import MIXED, ONE, OTHER, SAME, SEVERAL, TWO, asked, ids_of
from tests.tiny import byte_level, save_tower

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 48,
    "factor": 4.0,
}
KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "phi3, a window of 8": (Phi3Config, {"sliding_window": 8}),
    "mistral, a window of 20": (MistralConfig, {"sliding_window": 20}),
    "gemma2, windows in every second layer": (
        Gemma2Config,
        {"sliding_window": 9, "head_dim": 8, "tie_word_embeddings": False},
    ),
    "qwen2, windows from layer 1 on": (
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1},
    ),
    "phi3, LongRoPE that changes at 48": (
        Phi3Config,
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 48, "max_position_embeddings": 192},
    ),
    "llama, RoPE of Llama-3.1": (
        LlamaConfig,
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama, linear RoPE": (
        LlamaConfig,
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}},
    ),
    "llama, YaRN": (
        LlamaConfig,
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "phi, a part of each head turned": (PhiConfig, {"partial_rotary_factor": 0.5}),
    "granite, with multipliers": (
        GraniteConfig,
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "logits_scaling": 2.0, "attention_multiplier": 0.4},
    ),
}
RECURRENT: dict[str, Any] = {
    "num_hidden_layers": 4,
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 8,
}
"""Sizes of a Qwen3-Next, whose layers remember more than keys and values."""

SETTINGS = {
    "greedy": GenerationSettings(max_new_tokens=12),
    "beams and penalty": GenerationSettings(max_new_tokens=8, num_beams=3, repetition_penalty=1.2),
}
TWO_SETS = [  # pictures with different numbers of pictures, text alone, different beginnings: all in one batch
    *MIXED,
    asked("is it red?", TWO),
    asked("red", ()),
    Request((Turn("system", "be short"), Turn("user", "<image>\nwhat?")), OTHER),
    Request((Turn("system", "be short"), Turn("user", "<image>\nis there a circle?")), OTHER),
    Request((Turn("user", "red?"), Turn("assistant", "yes"), Turn("user", "and <image>?")), ONE),
]


def special(folder: Path, kind: type, more: dict[str, Any]) -> Generator:
    """A tiny Bunny around a language model of the given configuration."""
    tokenizer = byte_level()
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 2}
    fields = {"num_key_value_heads": 2, "max_position_embeddings": 512, **sizes, **ends, **more}
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(kind(vocab_size=len(tokenizer), **fields))
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data.normal_(std=0.25)
    model.save_pretrained(folder / "language")
    tokenizer.save_pretrained(folder / "language")
    save_tower(folder / "siglip")
    section = ModelSection(language_model=str(folder / "language"), vision_tower=str(folder / "siglip"))
    template = Template.named("chatml")
    return Generator(*build(section, template.model_dump(), template.jinja(), seed=0))


@pytest.mark.parametrize("kind", KINDS)
def test_together_and_one_by_one_give_the_same_ids(tmp_path: Path, kind: str) -> None:
    maker = special(tmp_path, *KINDS[kind])
    for settings, requests in itertools.product(SETTINGS.values(), (SAME, SEVERAL, TWO_SETS)):
        alone = [ids_of(maker, [request], settings)[0] for request in requests]
        assert ids_of(maker, requests, settings) == alone
        assert len({tuple(ids) for ids in alone}) > 1


def test_a_model_with_recurrent_states_is_read_whole(tmp_path: Path) -> None:
    config = Qwen3NextConfig(vocab_size=100, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, **RECURRENT)
    with torch.device("meta"):
        assert not prefix.sharable(AutoModel.from_config(config))
        assert prefix.sharable(AutoModel.from_config(LlamaConfig(num_hidden_layers=1)))


def count_tokens(maker: Generator, requests: list[Request]) -> int:
    """Token positions, pads too, that the language model computes for the requests before the first new token."""
    seen = []
    layer = maker.model.model.language_model.layers[0]
    hook = layer.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[:2].numel()))
    maker.answer_ids(requests, GenerationSettings(max_new_tokens=1))
    hook.remove()
    return sum(seen)


def test_what_questions_of_a_picture_begin_with_is_computed_once(tmp_path: Path) -> None:
    maker = special(tmp_path, LlamaConfig, {})
    questions = [f"is there a {word} in the picture? Answer with yes or no." for word in ("circle", "square", "green")]
    requests = [asked(text, ONE) for text in questions]
    prompts = [maker._ids(request) for request in requests]
    shared = prefix._common(prompts)
    assert shared > prompts[0].index(maker.model.config.image_token_id) + 16  # the first words too
    assert count_tokens(maker, requests) == shared + 3 * (max(map(len, prompts)) - shared)
    assert count_tokens(maker, requests[:1]) == len(prompts[0])


def test_an_answer_to_the_same_question_twice_is_the_same(tmp_path: Path) -> None:
    maker = special(tmp_path, LlamaConfig, {})
    (alone,) = ids_of(maker, [SAME[1]], SETTINGS["greedy"])
    assert ids_of(maker, [SAME[1]] * 3, SETTINGS["greedy"]) == [alone] * 3


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=9), st.integers(0, 2)), min_size=1))
def test_a_plan_shares_only_what_is_equal_and_leaves_every_row_a_token(rows: list[tuple[list[int], int]]) -> None:
    prompts, pictures = [row[0] for row in rows], [row[1] for row in rows]
    made = prefix.plan(prompts, pictures)
    if made is None:
        return
    start, rest = made.columns
    assert len(made.starts) * start + rest * len(prompts) < len(prompts) * max(map(len, prompts))
    assert sorted(made.order) == list(range(len(prompts)))
    behind = iter(made.rests)
    for beginning, group in zip(made.starts, made.rows, strict=True):
        assert len({pictures[row] for row in group}) == 1
        for row in group:
            own = next(behind)
            assert own
            assert beginning + own == prompts[row]
    assert prefix.plan(prompts, pictures, most=start + rest - 1) is None
