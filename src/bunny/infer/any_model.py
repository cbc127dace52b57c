"""Any Hugging Face image-text model as an `Answerer`: LLaVA, Qwen2-VL, SmolVLM and whatever else transformers opens.

In: a folder, questions. Out: answers by the model's own chat template and processor, in left-padded batches. Pictures
stand before the words, each is encoded for every question; only a Bunny shares them (see `answerer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, GenerationConfig

from bunny.core.errors import UserError
from bunny.core.types import Answer, GenerationSettings, ImageRef, Question
from bunny.infer.any_processor import load_processor, package_in
from bunny.infer.generate import generation_config
from bunny.infer.opening import Opened, opened
from bunny.model.language_models import bits

SEEING = [r".*vision[^.]*", r".*visual[^.]*", r".*projector[^.]*", r".*connector[^.]*", "lm_head"]
"""Parts of such models that stay as they are when the rest is packed, as transformers' patterns of names."""


def load_any(
    path: Path, dtype: torch.dtype, device: torch.device, quantise: Literal["nf4", "int8"] | None = None
) -> tuple[Any, Any]:
    """(model, processor) of a folder; code that comes with a folder is never run. Raises UserError with the reason.

    quantise: linear layers in 4 or 8 bits, but for those that see and the head.
    """
    how = {"quantization_config": bits(quantise, SEEING), "device_map": {"": device}} if quantise else {}
    try:
        model = AutoModelForImageTextToText.from_pretrained(path, dtype=dtype, **how)
        processor = load_processor(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, SafetensorError) as error:
        package = package_in(error) if isinstance(error, ImportError) else ""
        if package:
            raise UserError(f"{path}: needs the package {package}", fix=f"pip install {package}") from error
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: no image-text model that transformers opens ({first})",
            fix="give a model folder, or serve it elsewhere and use --endpoint",
        ) from error
    if not getattr(processor, "chat_template", None):
        raise UserError(f"{path}: its processor has no chat template", fix="add the model's chat_template.jinja")
    return (model if quantise else model.to(device)).eval(), processor


class AnyAnswerer:
    """Answers with a loaded model of any kind; arguments as `ModelAnswerer`'s."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        open_image: Callable[[ImageRef], Any],
        settings: GenerationSettings,
        batch_rows: int = 8,
        workers: int = 2,
    ) -> None:
        self.model, self.processor, self.open_image, self.settings = model, processor, open_image, settings
        self.batch_rows, self.workers = batch_rows, workers
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """One answer per question, batch by batch, in order of pictures and length."""
        ordered = sorted(questions, key=lambda question: (len(question.images), len(question.prompt)))
        batch: list[Opened] = []
        for one in opened(([question] for question in ordered), self.open_image, self.workers, ahead=16):
            if one.error:
                yield Answer(one.questions[0].id, "", error=one.error)
                continue
            if len(batch) == self.batch_rows or (batch and len(batch[0].images) != len(one.images)):
                yield from self._batch(batch)
                batch = []
            batch.append(one)
        if batch:
            yield from self._batch(batch)

    def _batch(self, batch: list[Opened]) -> Iterator[Answer]:
        prompts = [self._prompt(one.questions[0].prompt, len(one.images)) for one in batch]
        pictures = [list(one.images) for one in batch]
        try:
            inputs = self._inputs(prompts, pictures if pictures[0] else None)
        except ValueError as error:  # some kinds, PaliGemma among them, take no words without a picture
            if pictures[0]:
                raise
            yield from (Answer(one.questions[0].id, "", error=str(error)) for one in batch)
            return
        tokenizer = self.processor.tokenizer
        with torch.inference_mode():
            out = self.model.generate(
                **inputs,
                generation_config=own_config(self.model, self.processor, self.settings),
                tokenizer=tokenizer if self.settings.stop else None,
            )
        texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for one, text in zip(batch, texts, strict=True):
            for stop in self.settings.stop:
                text = text.partition(stop)[0]
            yield Answer(one.questions[0].id, text.strip())

    def _inputs(self, prompts: list[str], pictures: list[list[Any]] | None) -> Any:
        inputs = self.processor(
            text=prompts, images=pictures, padding=len(prompts) > 1, padding_side="left", return_tensors="pt"
        )
        return inputs.to(self.model.device, self.model.dtype)

    def _prompt(self, words: str, pictures: int) -> str:
        content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": words}]
        said = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return str(said)


def own_config(model: Any, processor: Any, settings: GenerationSettings) -> GenerationConfig:
    """What was asked, with the model's own ends; its sampling defaults are left out."""
    own = model.generation_config
    ends = own.eos_token_id if own.eos_token_id is not None else processor.tokenizer.eos_token_id
    first = ends[0] if isinstance(ends, list) else ends
    pads = [own.pad_token_id, processor.tokenizer.pad_token_id, first]
    return generation_config(
        settings,
        eos_token_id=ends,
        bos_token_id=own.bos_token_id,
        pad_token_id=next((pad for pad in pads if pad is not None), None),
    )
