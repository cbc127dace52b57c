"""A Bunny in words that every engine knows: its language model as a plain member of its family, without what only
this package's model class computes.

In: `Opened`. Out: `Stock`: the language model's configuration and tensors under transformers' own names, the two
layers of the projector, the tower. What changes, and what stays equal:

- Multipliers (Granite, MiniCPM, Cohere) go into the weights of a plain Llama: Granite multiplies what comes out of the
  embedding, of the projector and of both halves of a block, and divides logits; all of these are linear.
- Rows that are no words go. The `<image>` row, where it stays, becomes the mean of the words' rows: its logit is the
  mean of theirs, so that no engine prefers it, and by Jensen's inequality its share is below one word's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig

from bunny.core.errors import UserError
from bunny.export.opened import EMBEDDING, HEAD, LANGUAGE, PROJECTOR, TOWER, Opened
from bunny.model.tensor_views import Cut, Renamed
from bunny.model.tensors import Joined, TensorTable

PIECE_ROWS = 4096
STOCK_EMBEDDING, STOCK_HEAD = "model.embed_tokens.weight", "lm_head.weight"
FIRST, SECOND = "linear_1.", "linear_2."
FOLDED_OUTPUTS = ("self_attn.o_proj.weight", "self_attn.o_proj.bias", "mlp.down_proj.weight", "mlp.down_proj.bias")


@dataclass(frozen=True, slots=True)
class Stock:
    """text: configuration of the language model. language, projector, tower: their tensors; the tower's without prefix.
    folded: the multipliers that went into weights, by name; empty: every weight is as it was, but for cut rows.
    factors: tensor of the language model -> what it was multiplied by."""

    opened: Opened
    text: Any
    language: TensorTable
    projector: TensorTable
    tower: TensorTable
    folded: Mapping[str, float]
    factors: Mapping[str, float]

    @property
    def tied(self) -> bool:
        return STOCK_HEAD not in self.language.info


def stock(opened: Opened, rows: int) -> Stock:
    """The model as stock engines compute it, its vocabulary cut to `rows`. Raises UserError for what they cannot."""
    check_expressible(opened)
    text, folded = _plain_text(opened)
    table = Cut(opened.table, dict.fromkeys((name for name in (EMBEDDING, HEAD) if name in opened.table.info), rows))
    language = {f"model.{name}": LANGUAGE + name for name in opened.names(LANGUAGE)}
    if HEAD in opened.table.info:
        language[STOCK_HEAD] = HEAD
    elif folded:
        language[STOCK_HEAD] = EMBEDDING  # embedding and head are scaled apart from now on
    text.vocab_size = rows
    text.tie_word_embeddings = STOCK_HEAD not in language
    factors = _factors(language, folded)
    plain: TensorTable = Scaled(Renamed(table, language), factors)
    if opened.image_token < rows:
        name = STOCK_HEAD if STOCK_HEAD in language else STOCK_EMBEDDING
        plain = WithRow(plain, name, opened.image_token, opened.words)
    ends = {"0.": FIRST, "2.": SECOND}
    names = {ends[name[:2]] + name[2:]: PROJECTOR + name for name in opened.names(PROJECTOR)}
    scale = folded.get("embedding_multiplier", 1.0)
    projector = Scaled(Renamed(table, names), {name: scale for name in names if name.startswith(SECOND)})
    tower = Renamed(table, {name: TOWER + name for name in opened.names(TOWER)})
    return Stock(opened, text, plain, projector, tower, folded, factors)


INSTEAD = "`--to merged` writes this package's own folder, which `bunny chat` and `bunny serve` run"


def check_expressible(opened: Opened) -> None:
    """Raise UserError for a model that no stock engine has, in words that name what there is instead."""
    config, where = opened.config, opened.folder
    if config.s2_scales:
        raise UserError(f"{where}: S2 (several scales of one picture) is known to no stock engine", fix=INSTEAD)
    kind = config.vision_config.model_type
    if kind not in TOWERS:
        known = ", ".join(sorted({name.split("_")[0] for name in TOWERS}))
        raise UserError(f"{where}: its vision tower is `{kind}`; stock engines have {known}", fix=INSTEAD)
    if config.projector_type != "mlp2x_gelu":
        what = f"{where}: its projector is `{config.projector_type}`; stock engines have mlp2x_gelu alone"
        raise UserError(what, fix=INSTEAD)
    if getattr(config.text_config, "final_logit_softcapping", None):
        what = f"{where}: `{config.text_config.model_type}` caps its logits, which a stock LLaVA does not"
        raise UserError(what, fix=INSTEAD)
    if len(opened.names(PROJECTOR)) != 4:
        raise UserError(
            f"{where}: its projector has {len(opened.names(PROJECTOR))} tensors, not 4", fix="copy it again"
        )


TOWERS = ("siglip_vision_model", "clip_vision_model", "dinov2")
"""Towers that a stock LLaVA takes: pixels in, hidden states out, at most one token before the patches."""


def _plain_text(opened: Opened) -> tuple[Any, dict[str, float]]:
    """(the language model's configuration as stock engines read it, the multipliers that go into its weights)."""
    text = type(opened.config.text_config)(**opened.config.text_config.to_dict())
    text.architectures = None
    folded: dict[str, float] = {}
    if text.model_type == "granite":
        head = text.hidden_size // text.num_attention_heads
        folded = {
            "embedding_multiplier": float(text.embedding_multiplier),
            "residual_multiplier": float(text.residual_multiplier),
            "logits_multiplier": 1 / float(text.logits_scaling),
            "attention_multiplier": _one(float(text.attention_multiplier) * math.sqrt(head)),
        }
        fields = {name: value for name, value in text.to_dict().items() if name in LlamaConfig().to_dict()}
        text = LlamaConfig(**{**fields, "model_type": "llama", "head_dim": head})
    elif scale := getattr(text, "logit_scale", None):
        folded = {"logits_multiplier": float(scale)}
    return text, {name: factor for name, factor in folded.items() if factor != 1}


def _one(factor: float) -> float:
    """1 for a factor that differs from it by rounding alone."""
    return 1.0 if abs(factor - 1) < 1e-6 else factor


def _factors(names: Mapping[str, str], folded: Mapping[str, float]) -> dict[str, float]:
    """Tensor -> what it is multiplied by."""
    factors: dict[str, float] = {}
    for name in names:
        if name == STOCK_EMBEDDING and "embedding_multiplier" in folded:
            factors[name] = folded["embedding_multiplier"]
        elif name == STOCK_HEAD and "logits_multiplier" in folded:
            factors[name] = folded["logits_multiplier"]
        elif name.endswith(FOLDED_OUTPUTS) and "residual_multiplier" in folded:
            factors[name] = folded["residual_multiplier"]
        elif ".q_proj." in name and "attention_multiplier" in folded:
            factors[name] = folded["attention_multiplier"]
    return factors


class Scaled:
    """Tensors multiplied by `factors` (name -> factor), rounded once to their own dtype; the others as they are."""

    def __init__(self, table: TensorTable, factors: Mapping[str, float]) -> None:
        self.table, self.factors, self.info = table, dict(factors), table.info

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        rows = self.table.read(name, start, stop)
        factor = self.factors.get(name, 1.0)
        return rows if factor == 1 else (rows.double() * factor).to(rows.dtype)


class WithRow:
    """The tensor `name` with row `number` replaced by the mean of its first `words` rows (itself not counted)."""

    def __init__(self, table: TensorTable, name: str, number: int, words: int) -> None:
        self.table, self.name, self.number, self.words = table, name, number, words
        self.info = table.info

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        rows = self.table.read(name, start, stop)
        first, last, _ = slice(start, stop).indices(self.info[name].rows)
        if name == self.name and first <= self.number < last:
            rows = rows.clone()
            rows[self.number - first] = self._mean().to(rows.dtype)
        return rows

    def _mean(self) -> torch.Tensor:
        """(width,) float64."""
        total: torch.Tensor = torch.zeros(self.info[self.name].shape[1:], dtype=torch.float64)
        for start in range(0, self.words, PIECE_ROWS):
            total += self.table.read(self.name, start, min(start + PIECE_ROWS, self.words)).double().sum(0)
        if self.number < self.words:
            total -= self.table.read(self.name, self.number, self.number + 1).double()[0]
        return total / (self.words - (self.number < self.words))


def prefixed(tables: Mapping[str, TensorTable]) -> TensorTable:
    """Tables side by side, each under its prefix."""
    return Joined([Renamed(table, {prefix + name: name for name in table.info}) for prefix, table in tables.items()])
