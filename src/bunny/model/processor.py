"""`BunnyProcessor`: pictures to pixels and `<image>` marks to as many tokens as a picture takes.

In: PIL pictures of any size, text with marks. Out: pixel_values (B, 3, H, W) and ids. Pictures are padded to a square
with the mean colour (`pad`) or squashed (`square`), as the original's `image_aspect_ratio` says.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from PIL import Image
from transformers import AutoProcessor, LlavaProcessor
from transformers.image_utils import load_image

from bunny.model.config import BunnyConfig


class BunnyProcessor(LlavaProcessor):  # type: ignore[misc]  # transformers is untyped
    """Tokenizer, picture preprocessing and conversation template of a Bunny.

    image_seq_length: tokens per picture. image_aspect: `pad` or `square`.
    template: the conversation template as a mapping (see `text.template.Template`), so that a saved folder is whole.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 0,
        image_aspect: Literal["pad", "square"] = "pad",
        template: dict[str, Any] | None = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_seq_length, self.image_aspect, self.template = image_seq_length, image_aspect, template
        kwargs.setdefault("vision_feature_select_strategy", "full")
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        return super().__call__(images=self._prepared(images), text=text, **kwargs)

    def pixels(self, images: list[Image.Image]) -> Any:
        """pixel_values of pictures: (B, 3, H, W) float32 tensor."""
        return self.image_processor(self._prepared(images), return_tensors="pt")["pixel_values"]

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        return str(self.image_token) * self.image_seq_length

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, **kwargs: Any) -> Any:
        from transformers.processing_utils import MultiModalData

        count = len(image_sizes or [])
        return MultiModalData(num_image_tokens=[self.image_seq_length] * count, num_image_patches=[1] * count)

    def _prepared(self, images: Any) -> Any:
        """Pictures in RGB, padded to a square where the model was trained so; lists keep their nesting."""
        if images is None:
            return None
        if isinstance(images, (list, tuple)):
            return [self._prepared(image) for image in images]
        picture = (load_image(images) if not isinstance(images, Image.Image) else images).convert("RGB")
        picture.info.pop("transparency", None)  # of its palette; CLIP's processor would lay it on white
        return pad_to_square(picture, self.image_processor.image_mean) if self.image_aspect == "pad" else picture


def pad_to_square(picture: Image.Image, mean: Any) -> Image.Image:
    """The picture centred (rounded down) on a square of the mean colour `int(mean * 255)`, as the original pads."""
    width, height = picture.size
    if width == height:
        return picture
    side = max(width, height)
    square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in np.asarray(mean)))
    square.paste(picture, ((side - width) // 2, (side - height) // 2))
    return square


AutoProcessor.register(BunnyConfig, BunnyProcessor, exist_ok=True)
