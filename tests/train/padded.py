"""The obvious twin of packed training, in float64: tiny models, rows of every kind, and plain padded batches.

A padded batch goes through transformers' own forward with an attention mask: every row with its own pictures, logits at
all positions, shifted cross-entropy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
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
from bunny.core.recipe import LoraSection, StageSection
from bunny.core.types import IGNORE, ImageRef, TokenRow
from bunny.model import attention
from bunny.model.config import BunnyConfig
from bunny.model.modeling import BunnyForConditionalGeneration
from bunny.text.pack import Batch, pack
from bunny.train.learn import set_learning

IMAGE, TOKENS = 5, 16
SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
FAMILIES = {
    "llama": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2),
    "phi": PhiConfig(**SIZES, num_attention_heads=4, attention_dropout=0.0),
    "phi3": Phi3Config(**SIZES, num_attention_heads=4),
    "qwen2": Qwen2Config(**SIZES, num_attention_heads=4, num_key_value_heads=2),
    "stablelm": StableLmConfig(**SIZES, num_attention_heads=4, num_key_value_heads=4),
    "granite": GraniteConfig(
        **SIZES, num_attention_heads=4, embedding_multiplier=12.0, residual_multiplier=0.3, logits_scaling=4.0
    ),  # MiniCPM's arithmetic too
}


def tiny(text: PretrainedConfig, scales: Sequence[int] = ()) -> BunnyForConditionalGeneration:
    """A Bunny of two layers in float64. scales: S2's, (32, 64) for pictures of 64 pixels."""
    bunny.model.register()
    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    config = BunnyConfig(
        vision_config=vision,
        text_config=text,
        s2_scales=list(scales),
        image_token_index=IMAGE,
        image_seq_length=TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = BunnyForConditionalGeneration(config).double().eval()
    for name, module in list(model.named_modules()):
        if type(module).__name__.endswith("RMSNorm"):  # transformers' own computes in float32 whatever it is given
            norm = nn.RMSNorm(module.weight.shape, eps=module.variance_epsilon, dtype=torch.float64)
            model.set_submodule(name, norm)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    return model


def learning(model: BunnyForConditionalGeneration, language_model: str) -> nn.Module:
    """The engine's own choice of what learns, tower included; adapters that already do something."""
    section = StageSection(
        data=[],
        language_model=language_model,  # type: ignore[arg-type]
        vision_tower="train",
        lora=LoraSection(r=3, alpha=5, dropout=0),
        learning_rate=1e-3,
        gradient_checkpointing=False,
    )
    trained: nn.Module = set_learning(model, section)
    torch.manual_seed(1)
    for name, parameter in trained.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(std=0.2)
    return trained


def row(name: str, pictures: str, question: list[int], answer: list[int], tail: list[int]) -> TokenRow:
    """A conversation about pictures named by a letter each."""
    start = [7, 8, *[token for _ in pictures for token in [*[IMAGE] * TOKENS, 9]][:-1]]
    ids = np.array(start + question + answer + tail)
    labels = np.full(len(ids), IGNORE)
    first = len(start) + len(question)
    labels[first : first + len(answer)] = answer
    return TokenRow(name, ids, labels, tuple(ImageRef(picture) for picture in pictures))


ROWS = [
    row("a1", "a", [10, 11, 12], [20, 21], [3]),
    row("a2", "a", [10, 13], [22], [3, 4]),
    row("t", "", [30, 31, 32], [33, 34, 35], []),
    row("b1", "b", [14, 15, 16, 17], [23], []),
    row("ab1", "ab", [18, 19], [24, 25, 26, 27], [3]),
    row("a3", "a", [], [40, 41], [3]),  # the answer follows the picture at once: its first label sits on the prefix
    row("ab2", "ab", [18], [28], []),
    row("u", "", [36], [37, 38], [3]),
]


def pictures(side: int = 32) -> dict[str, Tensor]:
    """Pixels (3, side, side) float64 of pictures a and b."""
    return {
        name: torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed, name in enumerate("ab")
    }


def shown(refs: Sequence[ImageRef], side: int = 32) -> Tensor | None:
    """Pixels (B, 3, side, side) of pictures; None of none."""
    known = pictures(side)
    return torch.stack([known[ref.path] for ref in refs]) if refs else None


def padded_sums(model: nn.Module, rows: Sequence[TokenRow], side: int = 32) -> tuple[Tensor, Tensor]:
    """(each row's summed cross-entropy, each row's labels) of one padded batch, (B,) each."""
    longest = max(len(item.ids) for item in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
    for number, item in enumerate(rows):
        size = len(item.ids)
        ids[number, :size], mask[number, :size] = torch.from_numpy(item.ids), 1
        labels[number, :size] = torch.from_numpy(item.labels)
    pixels = shown([ref for item in rows for ref in item.images], side)
    logits = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits  # (B, T, vocabulary)
    losses = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    return losses.sum(1), (labels[:, 1:] != IGNORE).sum(1)


def padded_loss(
    model: nn.Module, normalise: str, rows: Sequence[TokenRow] = (), micro: int = 3, side: int = 32
) -> Tensor:
    """The step's loss in padded micro batches: mean over tokens, rows, or as the original over micro batches."""
    rows = rows or ROWS
    parts = [padded_sums(model, rows[first : first + micro], side) for first in range(0, len(rows), micro)]
    if normalise == "micro_batches":
        return torch.stack([sums.sum() / counts.sum() for sums, counts in parts]).mean()
    sums, counts = (torch.cat(column) for column in zip(*parts, strict=True))
    return (sums / counts).mean() if normalise == "rows" else sums.sum() / counts.sum()


def row_weight(normalise: str, rows: Sequence[TokenRow], micro: int = 3) -> list[float]:
    """Weight of each row's labels, the slow way."""
    if normalise == "tokens":
        return [1.0] * len(rows)
    size = 1 if normalise == "rows" else micro
    return [1.0 / sum(item.learns for item in rows[n // size * size :][:size]) for n in range(len(rows))]


def batch_loss(model: nn.Module, batch: Batch, side: int = 32) -> Tensor:
    """The summed weighted loss of a packed batch."""
    arrays = ("ids", "targets", "weights", "positions", "features_at", "segments")
    tensors = {name: torch.from_numpy(getattr(batch, name)) for name in arrays}
    loss: Tensor = model(packed=tensors | {"pixel_values": shown(batch.images, side)})
    return loss


def packed_loss(
    model: nn.Module, normalise: str, per_pass: int, share: bool, rows: Sequence[TokenRow] = (), side: int = 32
) -> Tensor:
    """The step's loss as the engine packs it."""
    rows = rows or ROWS
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.model.language_model.set_attn_implementation(attention.NAME)
    batches = pack(rows, IMAGE, TOKENS, per_pass, row_weight(normalise, rows), share)
    return torch.stack([batch_loss(model, batch, side) for batch in batches]).sum() / sum(b.weight for b in batches)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Gradients of everything that learns, by name."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def furthest(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Largest relative difference of a tensor's gradient. Key biases have none: they count as one millionth."""
    assert found.keys() == wanted.keys()
    return max(float((found[n] - wanted[n]).norm() / max(wanted[n].norm().item(), 1e-6)) for n in wanted)
