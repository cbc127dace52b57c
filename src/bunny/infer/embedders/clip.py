"""CLIP, SigLIP, SigLIP 2 and their kin through transformers: RGB arrays and texts in, unit vectors of their joint space
out.

A process has one device. Several GPUs are used by several worker processes (`engine: {use: local, workers: 8}`),
each of which sees its own as the first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.recipe import Section
from bunny.core.types import Embedded, FloatArray
from bunny.model import quiet

LONGEST_TEXT = 20_000  # characters that a tokenizer is given; far more than its tokens hold


class Clip(Section):
    """Any checkpoint whose transformers model has `get_image_features` and `get_text_features`."""

    model: str  # hub name or folder, e.g. google/siglip-so400m-patch14-384 or openai/clip-vit-large-patch14
    device: str = "auto"  # auto = the first GPU if there is one, else the CPU
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto = bf16 autocast on a GPU, fp32 on the CPU
    batch: int = Field(64, gt=0, description="pairs per forward pass")
    threads: int = Field(0, ge=0, description="threads that resize pictures; 0 = all cores")

    @property
    def name(self) -> str:
        """The checkpoint, and the precision unless it is full: vectors of one do not pass for those of another."""
        return f"{self.model}, bf16" if self._bf16 else self.model

    @cached_property
    def dim(self) -> int:
        return int(self._text_batch(["a"]).shape[1])

    def embed(self, pictures: Sequence[npt.NDArray[np.uint8]], texts: Sequence[str]) -> Embedded:
        """Image and text vectors, each (B, dim) float32, unit rows, B at least 1; a wordless text is a NaN row."""
        image = self._in_batches(self._image_batch, pictures)
        text = self._in_batches(self._text_batch, texts)
        text[[not words.strip() for words in texts]] = np.nan
        return Embedded(image, text)

    def _in_batches(self, look: Any, items: Sequence[Any]) -> FloatArray:
        starts = range(0, len(items), self.batch)
        return np.concatenate([look(items[start : start + self.batch]) for start in starts])

    def _image_batch(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> FloatArray:
        import torch

        pieces = list(self._crew.map(self._prepared, pictures))
        inputs = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}  # (B, …) each
        return self._forward("get_image_features", inputs)

    def _prepared(self, picture: npt.NDArray[np.uint8]) -> Any:
        """One picture as the model's tensors: pixel values, and what else it asks for (SigLIP 2: mask and shape)."""
        return self._processor.image_processor([Image.fromarray(picture)], return_tensors="pt")

    def _text_batch(self, texts: Sequence[str]) -> FloatArray:
        """Cut and padded to full length by the tokenizer (CLIP 77 tokens, SigLIP 64), always: SigLIP was trained so,
        and CLIP's causal mask makes it the same as no padding."""
        inputs = self._processor.tokenizer(
            [text[:LONGEST_TEXT] for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        return self._forward("get_text_features", inputs)

    def _forward(self, method: str, inputs: Any) -> FloatArray:
        import torch

        device = self._model.device
        inputs = {name: values.to(device) for name, values in inputs.items()}
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            found = getattr(self._model, method)(**inputs).pooler_output.float()  # (B, D)
            unit: FloatArray = torch.nn.functional.normalize(found, dim=-1).cpu().numpy()
        return unit

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        return self._loaded(AutoProcessor)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModel

        model = self._loaded(AutoModel)
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise UserError(f"{self.model}: has no joint image-text space", fix="name a CLIP or SigLIP checkpoint")
        return model.eval().to(self._device)

    @cached_property
    def _device(self) -> str:
        import torch

        return self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def _bf16(self) -> bool:
        if self.precision != "auto":
            return self.precision == "bf16"
        return not self._device.startswith("cpu")

    @cached_property
    def _crew(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads or os.cpu_count() or 1)

    def _loaded(self, kind: Any) -> Any:
        quiet()
        try:
            return kind.from_pretrained(self.model)
        except (OSError, ValueError) as error:
            line = " ".join(str(error).split())[:200]
            raise UserError(f"{self.model}: cannot be loaded ({line})", fix="give a hub name or a folder") from None


USE = Clip
