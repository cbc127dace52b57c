"""Answers together with how likely others were: the chance of each of a few words as the answer's first token.

In: prompts, as `Generator` takes them. Out: the same answers, and for each prompt the chances of the words, which add
up to one. They tell how near a wrong answer was to the right one, and so much more than right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bunny.core.types import GenerationSettings
from bunny.infer.generate import Generator, Request


class _Heard(list[int]):
    """The ids of an answer that knows the chances of the words."""

    chances: list[float]


class ChanceGenerator(Generator):
    """A `Generator` that listens.

    heard: (len(words),) chances of each request of the last `answer`, in their order. Words that begin with the same
    token have the same chance: theirs together.
    """

    def __init__(self, model: Any, processor: Any, words: Sequence[str]) -> None:
        super().__init__(model, processor)
        first = [processor.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
        different = sorted(set(first))
        self._tokens = torch.tensor(different, device=self.model.device)
        self._place = torch.tensor([different.index(token) for token in first], device=self.model.device)
        self.heard: list[list[float]] = []

    def answer_ids(self, requests: Sequence[Request], settings: GenerationSettings) -> list[list[int]]:
        answers = super().answer_ids(requests, settings)
        self.heard = [answer.chances for answer in answers if isinstance(answer, _Heard)]
        return answers

    def _generate(self, inputs: dict[str, Any], settings: GenerationSettings) -> list[list[int]]:
        config = self._config(settings)
        with torch.inference_mode():
            out = self.model.generate(
                **self._to_device(inputs), generation_config=config, return_dict_in_generate=True, output_logits=True
            )
        chances = out.logits[0][:, self._tokens].float().softmax(-1)[:, self._place]  # (B, V) -> (B, words)
        answers: list[list[int]] = []
        for row, some in zip(self._ended(out.sequences, inputs), chances.tolist(), strict=True):
            answer = _Heard(row)
            answer.chances = some
            answers.append(answer)
        return answers
