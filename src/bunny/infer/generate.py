"""Batched answers: each picture is encoded once, and its questions share one copy of its keys and values.

In: prompts that belong to the same pictures, grouped. Out: one answer each. Batched greedy answers equal one-by-one
answers (tests/infer): pads are masked, positions skip them, and a shared prefix is the same numbers it would be alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from bunny.core.types import GenerationSettings, ImageRef, Turn
from bunny.text.template import Template, Writer


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt: turns with their pictures (already decoded, PIL)."""

    turns: tuple[Turn, ...]
    images: tuple[Any, ...] = ()


class Generator:
    """A Bunny with its processor, ready to answer.

    >>> generator = Generator(*bunny.model.build.load("runs/demo/model"))  # doctest: +SKIP
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        config = model.config
        template = Template.model_validate(processor.template)
        self.writer = Writer(template, processor.tokenizer, config.image_token_id, config.image_seq_length)

    def answer(self, requests: Sequence[Request], settings: GenerationSettings) -> list[str]:
        """Answers to requests that share their pictures or have none, computed as one batch.

        Requests are answered together; those about the same pictures share the prefix up to the last picture token.
        """
        prompts = [self._ids(request) for request in requests]
        pictures = {id(request.images): request.images for request in requests if request.images}
        if len(pictures) == 1 and len(requests) > 1 and all(request.images for request in requests):
            return self._behind_prefix(prompts, next(iter(pictures.values())), settings)
        return self._padded(prompts, [picture for r in requests for picture in r.images], settings)

    def stream(self, request: Request, settings: GenerationSettings) -> Iterator[str]:
        """The answer to one request, piece by piece as it is written."""
        from threading import Thread

        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        ids = torch.tensor([self._ids(request)])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self._pixels(request.images)}
        failures: list[BaseException] = []

        def run() -> None:
            try:
                with torch.inference_mode():
                    self.model.generate(
                        **self._to_device(inputs), generation_config=self._config(settings), streamer=streamer
                    )
            except BaseException as error:  # noqa: BLE001  # handed to the caller's thread below
                failures.append(error)
                streamer.end()

        worker = Thread(target=run, daemon=True)
        worker.start()
        yield from streamer
        worker.join()
        if failures:
            raise failures[0]

    def _padded(self, prompts: list[list[int]], pictures: list[Any], settings: GenerationSettings) -> list[str]:
        """Plain left-padded batch."""
        ids, mask = self._left_padded(prompts)
        inputs = {"input_ids": ids, "attention_mask": mask, **self._pixels(pictures)}
        return self._generate(inputs, settings)

    def _behind_prefix(
        self, prompts: list[list[int]], pictures: Sequence[Any], settings: GenerationSettings
    ) -> list[str]:
        """One pass over the shared beginning with its pictures, then all questions behind copies of its cache."""
        from transformers import DynamicCache

        image = self.model.config.image_token_id
        cut = len(prompts[0]) - prompts[0][::-1].index(image)  # just behind the last picture token
        prefix = torch.tensor([prompts[0][:cut]])
        with torch.inference_mode():
            cache = self.model(
                **self._to_device({"input_ids": prefix, **self._pixels(pictures)}),
                past_key_values=DynamicCache(config=self.model.config.text_config),
                logits_to_keep=1,
            ).past_key_values
        cache.batch_repeat_interleave(len(prompts))
        rest, rest_mask = self._left_padded([prompt[cut:] for prompt in prompts])
        ids = torch.cat([prefix.expand(len(prompts), -1), rest], dim=1)
        mask = torch.cat([torch.ones(len(prompts), cut, dtype=torch.long), rest_mask], dim=1)
        return self._generate({"input_ids": ids, "attention_mask": mask, "past_key_values": cache}, settings)

    def _generate(self, inputs: dict[str, Any], settings: GenerationSettings) -> list[str]:
        with torch.inference_mode():
            out = self.model.generate(**self._to_device(inputs), generation_config=self._config(settings))
        new = out[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def _ids(self, request: Request) -> list[int]:
        return self.writer.prompt(request.turns, tuple(ImageRef(str(n)) for n in range(len(request.images))))

    def _left_padded(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, prompts))
        pad = self._pad()
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        return ids, mask

    def _pixels(self, pictures: Sequence[Any]) -> dict[str, Tensor]:
        return {"pixel_values": self.processor.pixels(list(pictures))} if pictures else {}

    def _to_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {key: v.to(self.model.device) if isinstance(v, Tensor) else v for key, v in inputs.items()}

    def _pad(self) -> int:
        tokenizer = self.processor.tokenizer
        return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.writer.stop_ids[0])

    def _config(self, settings: GenerationSettings) -> GenerationConfig:
        """Only what was asked: a base model's own sampling defaults never leak into an answer."""
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p} if settings.temperature > 0 else {}
        return GenerationConfig(
            max_new_tokens=settings.max_new_tokens,
            do_sample=settings.temperature > 0,
            repetition_penalty=settings.repetition_penalty,
            num_beams=settings.num_beams,
            eos_token_id=self.writer.stop_ids,
            pad_token_id=self._pad(),
            suppress_tokens=[self.model.config.image_token_id],
            **sampling,
        )
