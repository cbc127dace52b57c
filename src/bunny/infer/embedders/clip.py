"""CLIP, SigLIP and their kin through transformers: RGB arrays and texts in, unit vectors of their joint space out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from bunny.core.errors import UserError
from bunny.core.recipe import Section
from bunny.core.types import Embedded, FloatArray
from bunny.model import quiet


class Clip(Section):
    """Any checkpoint whose transformers model has `get_image_features` and `get_text_features`."""

    model: str  # hub name or folder, e.g. google/siglip-so400m-patch14-384 or openai/clip-vit-large-patch14
    device: str = "auto"  # auto = the first GPU if there is one, else the CPU
    batch: int = Field(64, gt=0, description="pairs per forward pass")

    @property
    def name(self) -> str:
        return self.model

    @property
    def dim(self) -> int:
        vector = self._text_batch([""])
        return int(vector.shape[1])

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
        inputs = self._processor.image_processor([Image.fromarray(one) for one in pictures], return_tensors="pt")
        return self._forward("get_image_features", inputs)

    def _text_batch(self, texts: Sequence[str]) -> FloatArray:
        """Padded to full length always: SigLIP was trained so, and CLIP's mask makes it the same as no padding."""
        inputs = self._processor.tokenizer(
            [text[:20_000] for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        return self._forward("get_text_features", inputs)

    def _forward(self, method: str, inputs: Any) -> FloatArray:
        import torch

        with torch.inference_mode():
            found = getattr(self._model, method)(**inputs.to(self._model.device)).pooler_output.float()  # (B, D)
            unit: FloatArray = torch.nn.functional.normalize(found, dim=-1).cpu().numpy()
        return unit

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        return self._loaded(AutoProcessor)

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModel

        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        model = self._loaded(AutoModel)
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            raise UserError(f"{self.model}: has no joint image-text space", fix="name a CLIP or SigLIP checkpoint")
        return model.eval().to(device)

    def _loaded(self, kind: Any) -> Any:
        quiet()
        try:
            return kind.from_pretrained(self.model)
        except (OSError, ValueError) as error:
            line = " ".join(str(error).split())[:200]
            raise UserError(f"{self.model}: cannot be loaded ({line})", fix="give a hub name or a folder") from None


USE = Clip
