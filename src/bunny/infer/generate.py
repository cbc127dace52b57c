"""Batched answers: each picture is encoded once, and what its questions begin with is read once.

In: prompts with their pictures. Out: one answer each. Batched answers equal one-by-one answers (tests/infer), greedy
or with beams: pads are masked, positions skip them, a shared beginning is the same numbers it would be alone (see
`prefix`), and pads are a token that the row has anyway, so that no repetition penalty sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from bunny.core.types import GenerationSettings, ImageRef, Turn
from bunny.infer import prefix, shared_attention
from bunny.text.template import Template, Writer


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt: turns with their pictures (already decoded, PIL)."""

    turns: tuple[Turn, ...]
    images: tuple[Any, ...] = ()


def generation_config(settings: GenerationSettings, **own: Any) -> GenerationConfig:
    """What was asked in transformers' words, with what the model itself brings (ends, padding)."""
    sampling = {"temperature": settings.temperature, "top_p": settings.top_p} if settings.temperature > 0 else {}
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=settings.temperature > 0,
        repetition_penalty=settings.repetition_penalty,
        num_beams=settings.num_beams,
        stop_strings=list(settings.stop) or None,
        **own,
        **sampling,
    )


class Generator:
    """A Bunny with its processor, ready to answer.

    >>> generator = Generator(*bunny.model.build.load("runs/demo/model"))  # doctest: +SKIP
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = object.__new__(type(model))  # weights are shared, the model handed in is unchanged
        self.model.__dict__ = dict(model.__dict__)  # copy.copy cannot copy one that FSDP has cut up
        self.processor = processor
        self._sharable = prefix.sharable(model.model.language_model)
        ends = model.generation_config.eos_token_id
        self._own_ends: list[int] = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self.model.generation_config = GenerationConfig()  # transformers fills what was not asked from here
        config = model.config
        template = Template.model_validate(processor.template)
        self.writer = Writer(template, processor.tokenizer, config.image_token_id, config.image_seq_length)

    def answer(self, requests: Sequence[Request], settings: GenerationSettings) -> list[str]:
        """One answer per request, computed as one batch."""
        texts = self.processor.tokenizer.batch_decode(self.answer_ids(requests, settings), skip_special_tokens=True)
        for stop in settings.stop:
            texts = [text.partition(stop)[0] for text in texts]
        return [text.strip() for text in texts]

    def answer_ids(self, requests: Sequence[Request], settings: GenerationSettings) -> list[list[int]]:
        """The ids of each answer, its end token included, computed as one batch.

        Requests about the same pictures (the same tuple) share all tokens that they begin with.
        """
        prompts = [self._ids(request) for request in requests]
        answers: dict[int, list[int]] = {}
        lengths = [len(prompt) for prompt in prompts]
        for rows, share in prefix.alike(lengths, settings.max_new_tokens, self.model.config.text_config):
            some = [prompts[row] for row in rows]
            pictures = [requests[row].images for row in rows]
            answers.update(zip(rows, self._together(some, pictures, settings, share), strict=True))
        return [answers[row] for row in range(len(requests))]

    def _together(
        self,
        prompts: list[list[int]],
        pictures: Sequence[tuple[Any, ...]],
        settings: GenerationSettings,
        share: bool,
    ) -> list[list[int]]:
        """Answers to prompts with their pictures, as one batch; `share`: beginnings may be read once."""
        plan = self._plan(prompts, [id(some) for some in pictures], settings) if share and self._sharable else None
        if plan is None:
            ids, mask = self._left_padded(prompts)
            return self._generate(self._inputs(ids, mask, [picture for some in pictures for picture in some]), settings)
        language = self.model.model.language_model
        before = language.config._attn_implementation
        inputs = self._behind_beginnings(plan, pictures, settings.num_beams)
        try:
            language.set_attn_implementation(shared_attention.NAME)
            answers = self._generate(inputs, settings)
        finally:
            language.set_attn_implementation(before)
        return [answer for _, answer in sorted(zip(plan.order, answers, strict=True))]

    def _plan(self, prompts: list[list[int]], pictures: list[int], settings: GenerationSettings) -> prefix.Plan | None:
        """Beginnings worth sharing, if they hold all pictures."""
        window = prefix.window(self.model.config.text_config)
        plan = prefix.plan(prompts, pictures, None if window is None else window - settings.max_new_tokens)
        image = self.model.config.image_token_id
        return None if plan is None or any(image in rest for rest in plan.rests) else plan

    def _behind_beginnings(
        self, plan: prefix.Plan, pictures: Sequence[tuple[Any, ...]], num_beams: int
    ) -> dict[str, Any]:
        """Inputs of all rows, after one pass over their beginnings, which hold the pictures."""
        from transformers import DynamicCache

        starts, seen = self._left_padded(plan.starts)  # (G, S)
        rests, mask = self._left_padded(plan.rests)  # (B, R)
        counts = [len(rows) for rows in plan.rows]
        owner = torch.repeat_interleave(torch.tensor(counts))  # (B,)
        shown = [picture for rows in plan.rows for picture in pictures[rows[0]]]
        start = {
            "inputs_embeds": self._embeds(starts, shown),
            "attention_mask": seen,
            "position_ids": (seen.cumsum(1) - 1).clamp(min=0),
        }
        with torch.inference_mode():
            read = self.model(**self._to_device(start), past_key_values=DynamicCache(), logits_to_keep=1)
        return {
            "input_ids": torch.cat([self._heard(starts)[owner], rests], dim=1),
            "attention_mask": torch.cat([seen[owner], mask], dim=1),
            "past_key_values": shared_attention.behind(read.past_key_values, [n * num_beams for n in counts]),
        }

    def stream(self, request: Request, settings: GenerationSettings) -> Iterator[str]:
        """The answer to one request, piece by piece as it is written; beams and stop words are known whole only."""
        if settings.num_beams > 1 or settings.stop:
            yield from self.answer([request], settings)
            return
        yield from self._streamed(request, settings)

    def _streamed(self, request: Request, settings: GenerationSettings) -> Iterator[str]:
        from threading import Thread

        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        ids = torch.tensor([self._ids(request)])
        inputs = self._inputs(ids, torch.ones_like(ids), list(request.images))
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

    def _inputs(self, ids: Tensor, mask: Tensor, pictures: list[Any]) -> dict[str, Any]:
        """What generation reads. A picture that stands in several rows is encoded once."""
        embeds = {"inputs_embeds": self._embeds(ids, pictures)} if pictures else {}
        return {"input_ids": self._heard(ids), "attention_mask": mask, **embeds}

    def _heard(self, ids: Tensor) -> Tensor:
        """The ids that a repetition penalty sees: token 0 where a picture stands, as in the original."""
        return ids.masked_fill(ids == self.model.config.image_token_id, 0)

    def _embeds(self, ids: Tensor, pictures: list[Any]) -> Tensor:
        """Input vectors of rows of ids (B, T) with the pictures' tokens in their places: (B, T, width)."""
        with torch.inference_mode():
            ids = ids.to(self.model.device)
            embeds = self.model.get_input_embeddings()(ids)
            if not pictures:
                return embeds  # type: ignore[no-any-return]
            different = {id(picture): picture for picture in pictures}
            order = {key: number for number, key in enumerate(different)}
            pixels = self._to_device(self._pixels(list(different.values())))
            tokens = torch.stack(list(self.model.get_image_features(**pixels).pooler_output))  # (different, M, width)
            wanted = tokens[[order[id(picture)] for picture in pictures]].flatten(0, 1).to(embeds.dtype)
            return embeds.masked_scatter((ids == self.model.config.image_token_id)[..., None], wanted)  # type: ignore[no-any-return]

    def _generate(self, inputs: dict[str, Any], settings: GenerationSettings) -> list[list[int]]:
        config = self._config(settings)
        with torch.inference_mode():
            out = self.model.generate(
                **self._to_device(inputs),
                generation_config=config,
                tokenizer=self.processor.tokenizer if settings.stop else None,
            )
        return self._ended(out, inputs)

    def _ended(self, sequences: Tensor, inputs: dict[str, Any]) -> list[list[int]]:
        """The ids behind each prompt, up to the first end."""
        ends = set(self._stop_ids())
        answers = []
        for row in sequences[:, inputs["input_ids"].shape[1] :].tolist():
            end = next((place + 1 for place, id in enumerate(row) if id in ends), len(row))
            answers.append(row[:end])  # behind an end stand pads
        return answers

    def _ids(self, request: Request) -> list[int]:
        return self.writer.prompt(request.turns, tuple(ImageRef(str(n)) for n in range(len(request.images))))

    def _left_padded(self, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
        longest = max(map(len, prompts))
        image = self.model.config.image_token_id
        pads = [next((id for id in prompt if id != image), 0) for prompt in prompts]
        ids = torch.tensor([[pad] * (longest - len(p)) + p for pad, p in zip(pads, prompts, strict=True)])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        return ids, mask

    def _pixels(self, pictures: Sequence[Any]) -> dict[str, Tensor]:
        return {"pixel_values": self.processor.pixels(list(pictures))} if pictures else {}

    def _to_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {key: v.to(self.model.device) if isinstance(v, Tensor) else v for key, v in inputs.items()}

    def _pad(self) -> int:
        tokenizer = self.processor.tokenizer
        return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.writer.stop_ids[0])

    def _stop_ids(self) -> list[int]:
        """Ids that end an answer: the template's, the tokenizer's, and those that the language model came with."""
        return list(dict.fromkeys([*self.writer.stop_ids, *self._own_ends]))

    def _config(self, settings: GenerationSettings) -> GenerationConfig:
        """Only what was asked: a base model's own sampling defaults never leak into an answer."""
        return generation_config(
            settings,
            eos_token_id=self._stop_ids(),
            pad_token_id=self._pad(),
            suppress_tokens=[self.model.config.image_token_id],
        )
