"""Pictures as EVA02-CLIP was trained on them: shorter side to the tower's size, then the middle square.

The original crops with torchvision, which rounds half a pixel to the even side where transformers rounds it down.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from transformers import AutoImageProcessor, CLIPImageProcessorPil

from bunny.model.eva_vision import EvaVisionConfig


class EvaImageProcessor(CLIPImageProcessorPil):  # type: ignore[misc]  # transformers is untyped
    """CLIP's preprocessing with torchvision's crop."""

    def center_crop(self, image: npt.NDArray[Any], size: Any, **kwargs: Any) -> npt.NDArray[Any]:
        """The middle of a picture (channels, H, W) that is at least as large as `size`."""
        top, left = (
            round((have - want) / 2) for have, want in zip(image.shape[1:], (size.height, size.width), strict=True)
        )
        return image[:, top : top + size.height, left : left + size.width]


def eva_image_processor(side: int) -> EvaImageProcessor:
    """For a tower of `side` pixels."""
    return EvaImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


AutoImageProcessor.register(EvaVisionConfig, image_processor_classes={"pil": EvaImageProcessor}, exist_ok=True)
