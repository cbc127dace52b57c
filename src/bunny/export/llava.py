"""A Bunny becomes a stock `LlavaForConditionalGeneration` folder in the layout that LLaVA checkpoints have on the Hub.

In: a model folder. Out: safetensors under `language_model.…`, `vision_tower.vision_model.…`, `multi_modal_projector.…`,
a stock processor with the conversation's chat template. No code of this package is needed to run it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoTokenizer, GenerationConfig, LlavaConfig, LlavaProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from bunny.core.errors import UserError
from bunny.core.store import write_atomic
from bunny.export.opened import Opened
from bunny.export.stock import STOCK_HEAD, Stock, prefixed, stock
from bunny.model.merge import most
from bunny.model.tensor_writing import write_tensors
from bunny.model.tensors import TensorInfo, TensorTable
from bunny.model.vision import picture_side

BIASED_HEADS = ("phi",)
"""Families whose head has a bias in every engine but a stock LLaVA, and never in a Bunny: zeros are written for it."""

WHOLE_TOWERS = ("siglip_vision_model", "clip_vision_model")
"""Towers whose tensors stand under `vision_model.` on the Hub."""


@dataclass(frozen=True, slots=True)
class Written:
    """tensors: how many; dtype: of most weights; folded: multipliers that went into weights, by name."""

    tensors: int
    dtype: str
    folded: Mapping[str, float]


def write_llava(opened: Opened, work: Path, dtype: torch.dtype | None = None) -> Written:
    """Fill the folder `work`. dtype: of the weights; None: as stored. Raises UserError for what LLaVA cannot say."""
    rows = max(opened.words, opened.image_token + 1)
    model = stock(opened, rows)
    config = _config(model)
    processor = _processor(opened)
    table = _table(model)
    config.dtype = dtype or most(table)
    write_tensors(table, work, dtype)
    config.save_pretrained(work)
    _add_older_words(work / "config.json", model.text)
    processor.save_pretrained(work)
    processor.image_processor.save_pretrained(work)  # where transformers 4 looks for it
    _write_tokenizer_settings(work)
    _generation(opened, rows).save_pretrained(work)
    return Written(len(table.info), str(config.dtype).removeprefix("torch."), model.folded)


def _config(model: Stock) -> LlavaConfig:
    ours, text = model.opened.config, model.text
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(text.model_type)
    if name is None:
        raise UserError(f"{model.opened.folder}: `{text.model_type}` is no causal language model of transformers")
    text.architectures = [name]
    return LlavaConfig(
        vision_config=ours.vision_config,
        text_config=text,
        image_token_index=ours.image_token_id,
        image_seq_length=ours.image_seq_length,
        projector_hidden_act="gelu",
        multimodal_projector_bias=True,
        vision_feature_layer=ours.vision_feature_layer,
        vision_feature_select_strategy=ours.vision_feature_select_strategy,
        tie_word_embeddings=model.tied,
        architectures=["LlavaForConditionalGeneration"],
    )


def _add_older_words(path: Path, text: Any) -> None:
    """Where the positions' settings stood before transformers 5: an older reader would take its defaults instead."""
    rope = dict(getattr(text, "rope_parameters", None) or {})
    if "rope_theta" not in rope:
        return  # none, or one set for each kind of layer (Gemma-3), which older readers have no single word for
    older = {name: rope.pop(name) for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    if rope.get("rope_type", "default") != "default":
        older["rope_scaling"] = rope
    config = json.loads(path.read_text(encoding="utf-8"))
    config["text_config"] |= older
    write_atomic(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _table(model: Stock) -> TensorTable:
    whole = model.opened.config.vision_config.model_type in WHOLE_TOWERS
    language: TensorTable = model.language
    if model.text.model_type in BIASED_HEADS and STOCK_HEAD in language.info:
        language = WithZeros(language, "lm_head.bias", TensorInfo((language.info[STOCK_HEAD].rows,), torch.float32))
    return prefixed(
        {
            "language_model.": language,
            "multi_modal_projector.": model.projector,
            "vision_tower.vision_model." if whole else "vision_tower.": model.tower,
        }
    )


class WithZeros:
    """A table with one more tensor, of zeros."""

    def __init__(self, table: TensorTable, name: str, info: TensorInfo) -> None:
        self.table, self.name = table, name
        self.info = {**table.info, name: info}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        if name != self.name:
            return self.table.read(name, start, stop)
        return torch.zeros(self.info[name].shape, dtype=self.info[name].dtype)[start:stop]


def _processor(opened: Opened) -> Any:
    """A stock processor that gives the pixels, ids and prompts that the folder's own gives."""
    tokenizer = AutoTokenizer.from_pretrained(opened.folder, trust_remote_code=False)
    template = opened.folder / "chat_template.jinja"
    default = opened.config.vision_feature_select_strategy == "default"
    return LlavaProcessor(
        _image_processor(opened),
        tokenizer,
        patch_size=opened.config.vision_config.patch_size,
        vision_feature_select_strategy=opened.config.vision_feature_select_strategy,
        num_additional_image_tokens=1 if default else 0,  # the class token, which `default` then takes away
        chat_template=template.read_text(encoding="utf-8") if template.exists() else None,
    )


def _image_processor(opened: Opened) -> Any:
    """The tower's own, or LLaVA's where pictures are padded to a square: its padding is Bunny's."""
    own = AutoImageProcessor.from_pretrained(opened.folder, trust_remote_code=False)
    side = picture_side(own)
    square = {"height": side, "width": side}
    if opened.processor.get("image_aspect", "pad") != "pad":
        own.crop_size = getattr(own, "crop_size", None) or square  # LlavaProcessor asks for it, used or not
        return own
    kept = ("resample", "image_mean", "image_std", "rescale_factor", "do_rescale", "do_normalize", "do_resize")
    settings = {name: value for name, value in own.to_dict().items() if name in kept}
    return LlavaImageProcessorPil(**settings, do_pad=True, size=square, crop_size=square, do_center_crop=False)


def _write_tokenizer_settings(work: Path) -> None:
    """Words that transformers 4 reads too, as engines with their own copy of it do."""
    path = work / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for key in ("backend", "is_local", "local_files_only", "auto_map"):
        settings.pop(key, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["processor_class"] = "LlavaProcessor"
    more = settings.pop("extra_special_tokens", None)
    if isinstance(more, list):
        settings["additional_special_tokens"] = more
    write_atomic(path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def _generation(opened: Opened, rows: int) -> GenerationConfig:
    """When answers end; the `<image>` token is suppressed."""
    kept = {key: value for key, value in opened.generation.items() if key.endswith("_token_id")}
    return GenerationConfig(**kept, suppress_tokens=[opened.image_token] if opened.image_token < rows else None)
