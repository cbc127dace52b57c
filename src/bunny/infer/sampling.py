"""The next token of many rows at once.

In: logits of each row's last position, how each row draws. Out: one token a row with its probability where asked, by
one transfer from the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from bunny.core.errors import UserError
from bunny.core.types import GenerationSettings


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row's next token. id: -1 if its logits are no numbers. logprob: natural logarithm, before temperature and
    penalty. others: (id, logprob) of the likeliest tokens."""

    id: int
    logprob: float = math.nan
    others: tuple[tuple[int, float], ...] = ()


class Chooser:
    """How one row draws its tokens. seed: none: another answer each time. logprobs: as in `ChatRequest`.

    Raises UserError for settings that mean nothing.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        seed: int | None,
        logprobs: int | None,
        heard: Sequence[int],
        device: torch.device,
    ) -> None:
        self.logprobs, self.greedy = logprobs, settings.temperature == 0
        self.penalised = settings.repetition_penalty != 1.0
        self.heard = dict.fromkeys(heard) if self.penalised else {}
        try:
            self._processors = _processors(settings)
        except ValueError as error:
            raise UserError(f"{error}", fix="change the sampling settings") from None
        self._draws: torch.Generator | None = None
        if not self.greedy:
            self._draws = torch.Generator(device)
            if seed is None:
                self._draws.seed()
            else:
                self._draws.manual_seed(seed % 2**63)

    @property
    def plain(self) -> bool:
        """Whether it takes the likeliest token as it is."""
        return self.greedy and not self.penalised

    def choose(self, logits: Tensor) -> Tensor:
        """The next token's id, (1,), by logits (1, vocabulary) float32."""
        heard = torch.tensor([list(self.heard)], device=logits.device) if self.penalised else None
        scores = self._processors(heard, logits)
        if self.greedy:
            return scores.argmax(-1)  # type: ignore[no-any-return]
        return torch.multinomial(scores.softmax(-1), 1, generator=self._draws)[0]

    def hear(self, id: int) -> None:
        if self.penalised:
            self.heard[id] = None


def _processors(settings: GenerationSettings) -> LogitsProcessorList:
    """transformers' own, in its order."""
    some = LogitsProcessorList()
    if settings.repetition_penalty != 1.0:
        some.append(RepetitionPenaltyLogitsProcessor(float(settings.repetition_penalty)))
    if settings.temperature != 0:
        some.append(TemperatureLogitsWarper(float(settings.temperature)))
        if settings.top_p != 1.0:
            some.append(TopPLogitsWarper(float(settings.top_p)))
    return some


def draw(choosers: Sequence[Chooser], logits: Tensor, never: int) -> list[Drawn]:
    """One token a row from logits (B, vocabulary). never: an id that is not drawn, whatever its logit."""
    raw = logits.float()
    open_ = raw.clone() if any(one.logprobs is not None for one in choosers) else raw
    open_[:, never] = -math.inf
    best, tokens = open_.max(-1)  # (B,): not a number where any logit is none
    whole = best.isfinite()
    for row, one in enumerate(choosers):
        if not one.plain:
            safe = torch.where(whole[row], open_[row : row + 1], 0.0)  # the draw of a broken row must not raise
            tokens[row] = one.choose(safe)[0]
    tokens = torch.where(whole, tokens, -1)
    asked = [row for row, one in enumerate(choosers) if one.logprobs is not None]
    if not asked:
        return [Drawn(id) for id in tokens.tolist()]
    return _with_chances(choosers, raw, tokens, asked)


def _with_chances(choosers: Sequence[Chooser], raw: Tensor, tokens: Tensor, asked: list[int]) -> list[Drawn]:
    most = max(choosers[row].logprobs or 0 for row in asked)
    chances = raw[asked].log_softmax(-1)  # (A, vocabulary)
    own = chances.gather(1, tokens[asked].clamp(min=0)[:, None])
    values, ids = chances.topk(min(most, chances.shape[1]), dim=-1)  # (A, most)
    table = torch.cat([tokens[asked, None].double(), own.double(), values.double(), ids.double()], dim=1)
    alone = tokens.new_zeros(len(choosers), table.shape[1], dtype=torch.float64)
    alone[:, 0] = tokens.double()
    alone[asked] = table
    drawn = []
    for one, (id, logprob, *rest) in zip(choosers, alone.tolist(), strict=True):
        half, wanted = len(rest) // 2, one.logprobs
        if wanted is None:
            drawn.append(Drawn(int(id)))
            continue
        pairs = zip(map(int, rest[half:]), rest[:half], strict=True)
        drawn.append(Drawn(int(id), logprob, tuple(pairs)[:wanted]))
    return drawn
