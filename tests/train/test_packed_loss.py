"""The packed, prefix-shared loss and its gradients equal those of plain padded rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    GraniteConfig,
    LlamaConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    Qwen2Config,
    SiglipVisionConfig,
    StableLmConfig,
)

import bunny.model
from bunny.core.types import IGNORE, ImageRef, TokenRow
from bunny.model import attention
from bunny.model.config import BunnyConfig
from bunny.model.modeling import BunnyForConditionalGeneration
from bunny.text.pack import pack

IMAGE, TOKENS = 5, 16
SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
FAMILIES = {
    "llama": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2),
    "phi": PhiConfig(**SIZES, num_attention_heads=4, attention_dropout=0.0),
    "phi3": Phi3Config(**SIZES, num_attention_heads=4),
    "qwen2": Qwen2Config(**SIZES, num_attention_heads=4, num_key_value_heads=2),
    "stablelm": StableLmConfig(**SIZES, num_attention_heads=4, num_key_value_heads=4),
    "granite": GraniteConfig(**SIZES, num_attention_heads=4, embedding_multiplier=12.0, residual_multiplier=0.3),
}


def tiny(text: PretrainedConfig) -> BunnyForConditionalGeneration:
    bunny.model.register()
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    config = BunnyConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = BunnyForConditionalGeneration(config).double().eval()
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):  # transformers' own computes in float32 whatever it is given
            norm = torch.nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon, dtype=torch.float64)
            model.set_submodule(name, norm)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    return model


def row(name: str, picture: str | None, question: list[int], answer: list[int], tail: list[int]) -> TokenRow:
    start = [7, 8] + ([IMAGE] * TOKENS if picture else [])
    ids = np.array(start + question + answer + tail)
    labels = np.full(len(ids), IGNORE)
    first = len(start) + len(question)
    labels[first : first + len(answer)] = answer
    return TokenRow(name, ids, labels, (ImageRef(picture),) if picture else ())


ROWS = [
    row("a1", "a", [10, 11, 12], [20, 21], [3]),
    row("a2", "a", [10, 13], [22], [3, 4]),
    row("t", None, [30, 31, 32], [33, 34, 35], []),
    row("b1", "b", [14, 15, 16, 17], [23], []),
    row("a3", "a", [], [40, 41], [3]),  # the answer follows the picture at once: its first label sits on the prefix
]
PIXELS = {name: torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed, name in enumerate("ab")}


def padded_loss(model: BunnyForConditionalGeneration, normalise: str) -> torch.Tensor:
    """The obvious twin: every row alone through transformers' own forward, all logits, shifted cross-entropy."""
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for item in ROWS:
        pictures = torch.stack([PIXELS[ref.path] for ref in item.images]).double() if item.images else None
        logits = model(input_ids=torch.from_numpy(item.ids)[None], pixel_values=pictures).logits[0, :-1]
        targets = torch.from_numpy(item.labels)[1:]
        share = 1.0 if normalise == "tokens" else 1.0 / item.learns
        total = total + share * torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        weight += share * item.learns
    return total / weight


def packed_loss(model: BunnyForConditionalGeneration, normalise: str, per_pass: int, share: bool) -> torch.Tensor:
    model.model.language_model.set_attn_implementation(attention.NAME)
    weights = [1.0 if normalise == "tokens" else 1.0 / item.learns for item in ROWS]
    batches = pack(ROWS, IMAGE, TOKENS, per_pass, weights, share)
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    for batch in batches:
        pictures = torch.stack([PIXELS[ref.path] for ref in batch.images]).double() if batch.images else None
        total = total + model(
            packed={
                "ids": torch.from_numpy(batch.ids),
                "targets": torch.from_numpy(batch.targets),
                "weights": torch.from_numpy(batch.weights),
                "positions": torch.from_numpy(batch.positions),
                "features_at": torch.from_numpy(batch.features_at),
                "segments": torch.from_numpy(batch.segments),
                "pixel_values": pictures,
            }
        )
        weight += batch.weight
    return total / weight


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("normalise", "per_pass", "share"),
    [("tokens", 10_000, True), ("tokens", 40, True), ("tokens", 10_000, False), ("rows", 60, True)],
)
def test_gradients_equal_those_of_padded_rows(family: str, normalise: str, per_pass: int, share: bool) -> None:
    model = tiny(FAMILIES[family])
    loss = padded_loss(model, normalise)
    loss.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    other = packed_loss(model, normalise, per_pass, share)
    other.backward()
    assert other.item() == pytest.approx(loss.item(), rel=1e-12)
    assert {"model.multi_modal_projector.0.weight", "lm_head.weight"} <= wanted.keys()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        largest = max(wanted[name].norm().item(), 1e-6)  # key biases have no gradient at all
        assert (gradient - wanted[name]).norm().item() <= 1e-10 * largest, name


def test_sharing_computes_each_picture_once_and_fewer_tokens() -> None:
    (shared,) = pack(ROWS, IMAGE, TOKENS, 10_000)
    (alone,) = pack(ROWS, IMAGE, TOKENS, 10_000, share=False)
    assert len(shared.images) == len(alone.images) == 2
    assert len(shared.ids) < len(alone.ids) - TOKENS
    assert shared.weight == alone.weight == sum(item.learns for item in ROWS)


def test_changing_one_row_leaves_the_others_gradients_alone() -> None:
    model = tiny(FAMILIES["llama"])
    model.model.language_model.set_attn_implementation(attention.NAME)
    (batch,) = pack([ROWS[0], ROWS[1]], IMAGE, TOKENS, 10_000)
    start, end, *_ = batch.segments[1].tolist()
    embeds = torch.randn(1, len(batch.ids), 32, dtype=torch.float64, requires_grad=True)
    hidden = model.model.language_model(
        inputs_embeds=embeds,
        position_ids=torch.from_numpy(batch.positions)[None],
        attention_mask=torch.from_numpy(batch.segments)[None, None],
        use_cache=False,
    ).last_hidden_state[0]
    (hidden[start:end] ** 2).sum().backward()
    assert embeds.grad is not None
    touched = embeds.grad[0].abs().sum(-1) > 0
    assert touched[:end].all()
    assert not touched[end:].any()
