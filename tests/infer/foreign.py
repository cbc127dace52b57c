"""Tiny random folders of other image-text models: what `bunny eval` opens besides its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from tests.tiny import ENDS, byte_level

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% for part in m.content %}"
    "{% if part.type == 'image' %}IMAGE\n{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "bos_token_id": None,
}


def save_llava(folder: Path) -> None:
    tokenizer = byte_level((*ENDS, "<image>"))
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    _save(LlavaForConditionalGeneration, config, processor, folder)


def save_idefics3(folder: Path) -> None:
    """The family of SmolVLM: a large picture is cut into tiles."""
    marks = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
    tiles = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
    tokenizer = byte_level((*ENDS, *marks, *tiles))
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_config=vision | {"image_size": 32, "patch_size": 8},
        text_config=LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        scale_factor=2,
        pad_token_id=2,
    )
    pixels = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    template = TEMPLATE.replace("IMAGE", "<image>")
    processor = Idefics3Processor(pixels, tokenizer, image_seq_len=4, chat_template=template)
    _save(Idefics3ForConditionalGeneration, config, processor, folder)


FOREIGN: Mapping[str, Callable[[Path], None]] = {"llava": save_llava, "idefics3": save_idefics3}


def _save(kind: Any, config: Any, processor: Any, folder: Path) -> None:
    torch.manual_seed(0)
    model = kind(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data.normal_(std=0.25)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 2
    model.generation_config.do_sample, model.generation_config.temperature = True, 5.0  # must not leak
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
