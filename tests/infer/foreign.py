"""Tiny random folders of other image-text models: what `bunny eval` opens besides its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
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

from bunny.infer.any_processor import pictures_only
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
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
PINPOINTS = [[32, 32], [32, 64], [64, 32]]


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


def save_llava_next(folder: Path) -> None:
    """Pictures in tiles of their own shape."""
    tokenizer = byte_level((*ENDS, "<image>"))
    config = transformers.LlavaNextConfig(
        vision_config=CLIPVisionConfig(**TOWER, num_hidden_layers=3, image_size=32, patch_size=8),
        text_config=LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
    )
    pixels = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS
    )
    processor = transformers.LlavaNextProcessor(
        pixels,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    _save(transformers.LlavaNextForConditionalGeneration, config, processor, folder)


def save_llava_onevision(folder: Path) -> None:
    """Tiles, and a processor with a part for films."""
    tokenizer = byte_level((*ENDS, "<image>", "<video>"))
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(**TOWER, num_hidden_layers=2, image_size=32, patch_size=8),
        text_config=transformers.Qwen2Config(vocab_size=len(tokenizer), **TEXT),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=PINPOINTS,
    )
    pixels = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS
    )
    processor = pictures_only(transformers.LlavaOnevisionProcessor)(
        pixels,
        tokenizer,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    _save(transformers.LlavaOnevisionForConditionalGeneration, config, processor, folder)


def save_qwen2_5_vl(folder: Path) -> None:
    """Pictures of any size, a rotary position for each patch, and a processor with a part for films."""
    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = byte_level((*ENDS, *marks))
    start, end, image, video = (tokenizer.convert_tokens_to_ids(mark) for mark in marks)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "window_size": 16,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 32,
        },
        text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    pixels = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 48 * 48}
    )
    template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = pictures_only(transformers.Qwen2_5_VLProcessor)(pixels, tokenizer, chat_template=template)
    _save(transformers.Qwen2_5_VLForConditionalGeneration, config, processor, folder)


def save_internvl(folder: Path) -> None:
    """Tiles with a thumbnail, and a processor with a part for films."""
    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    plain = byte_level((*ENDS, *marks.values(), "<video>"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        eos_token=plain.eos_token,
        pad_token=plain.pad_token,
        extra_special_tokens={**marks, "video_token": "<video>"},
    )
    config = transformers.InternVLConfig(
        vision_config={**TOWER, "num_hidden_layers": 2, "image_size": [32, 32], "patch_size": [8, 8]},
        text_config=transformers.Qwen2Config(vocab_size=len(tokenizer), **TEXT),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    pixels = transformers.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=2
    )
    template = TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>")
    kind = pictures_only(transformers.InternVLProcessor)
    processor = kind(pixels, tokenizer, image_seq_length=4, chat_template=template)
    _save(transformers.InternVLForConditionalGeneration, config, processor, folder)


def save_paligemma(folder: Path) -> None:
    """The words see each other in both directions."""
    tokenizer = byte_level((*ENDS, "<image>"))
    tokenizer.add_special_tokens({"bos_token": ENDS[0]})
    text = {key: value for key, value in TEXT.items() if key != "bos_token_id"}
    config = transformers.PaliGemmaConfig(
        vision_config={**TOWER, "num_hidden_layers": 2, "image_size": 32, "patch_size": 8, "projection_dim": 32},
        text_config={**text, "model_type": "gemma", "vocab_size": len(tokenizer), "head_dim": 8},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    pixels = transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    pixels.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(pixels, tokenizer, chat_template=TEMPLATE.replace("IMAGE", "<image>"))
    _save(transformers.PaliGemmaForConditionalGeneration, config, processor, folder)


FOREIGN: Mapping[str, Callable[[Path], None]] = {
    "llava": save_llava,
    "idefics3": save_idefics3,
    "llava_next": save_llava_next,
    "llava_onevision": save_llava_onevision,
    "qwen2_5_vl": save_qwen2_5_vl,
    "internvl": save_internvl,
    "paligemma": save_paligemma,
}


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
