"""Vision tower + projector + language model become one Bunny.

In: the recipe's `model` section. Out: (model, processor), weights loaded whole: every missing or unread tensor is an
error. A saved Bunny folder is opened with `load`.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.model import quiet
from bunny.model.config import BunnyConfig
from bunny.model.image_token import claim_image_token, words_of
from bunny.model.language_models import bits, load_language_model
from bunny.model.loading import nothing_lost
from bunny.model.modeling import BunnyForConditionalGeneration
from bunny.model.original import PROJECTOR, is_original
from bunny.model.processor import BunnyProcessor
from bunny.model.projector import build_projector, output_tokens
from bunny.model.tensors import open_tensors
from bunny.model.vision import check_layer, load_tower, picture_side, set_scales, tokens_of


def build(
    section: ModelSection,
    template: dict[str, Any],
    chat_template: str,
    seed: int,
    quantise: Literal["nf4", "int8"] | None = None,
) -> tuple[Any, BunnyProcessor]:
    """A model whose projector is fresh (drawn from `seed`) and whose other parts are the released ones.

    quantise: the language model's linear layers in 4 or 8 bits, for training LoRA on them.
    """
    quiet()
    tower, image_processor = load_tower(section.vision_tower, section.image_size)
    check_layer(tower, section.vision_feature_layer, section.vision_tower)
    strategy, patches = tokens_of(tower.config, picture_side(image_processor))
    if section.s2_scales:
        set_scales(image_processor, section.s2_scales)
    language_model, tokenizer = load_language_model(section.language_model, quantise)
    for part in (tower, language_model):
        part.config._name_or_path = ""  # a folder of this machine is no part of the model
    head_rows = language_model.get_output_embeddings().out_features
    words = words_of(tokenizer)
    tokenizer, image_token_id = claim_image_token(tokenizer, head_rows)
    if image_token_id >= head_rows:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the new row is drawn around the mean of the others
            language_model.resize_token_embeddings(image_token_id + 1)
    tokens = output_tokens(section.projector, patches)
    config = BunnyConfig(
        vision_config=copy.deepcopy(tower.config),
        text_config=copy.deepcopy(language_model.config),
        projector_type=section.projector,
        s2_scales=list(section.s2_scales),
        words=words,
        head_rows=head_rows,
        image_token_index=image_token_id,
        image_seq_length=tokens,
        vision_feature_layer=section.vision_feature_layer,
        vision_feature_select_strategy=strategy,
    )
    model = _assemble(config, tower, language_model, seed)
    model.generation_config = _generation(language_model, tokenizer, template, image_token_id)
    processor = BunnyProcessor(
        image_processor,
        tokenizer,
        image_seq_length=tokens,
        image_aspect=section.image_aspect,
        template=template,
        chat_template=chat_template,
        vision_feature_select_strategy=strategy,
    )
    return model, processor


def _generation(language_model: Any, tokenizer: Any, template: dict[str, Any], image_token_id: int) -> GenerationConfig:
    """Answers end where the language model's own do and at the template's end; its sampling defaults are not kept."""
    own = language_model.generation_config.eos_token_id
    ends = own if isinstance(own, list) else [own]
    ends = [*ends, tokenizer.eos_token_id, tokenizer.get_vocab().get(template["assistant_turn"]["end"])]
    known = sorted({int(id) for id in ends if id is not None})
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(known), None)
    return GenerationConfig(eos_token_id=known or None, pad_token_id=pad, suppress_tokens=[image_token_id])


def _assemble(config: BunnyConfig, tower: nn.Module, language_model: Any, seed: int) -> Any:
    head = language_model.get_output_embeddings()
    with torch.device("meta"):
        model = BunnyForConditionalGeneration(config)
    model.model.vision_tower = tower
    model.model.language_model = language_model.base_model
    model.model.multi_modal_projector = _fresh_projector(config, seed)
    model.lm_head = nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
    model.lm_head.weight = head.weight
    left = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    if left:
        raise UserError(f"no weights were loaded for {', '.join(left[:5])} ({len(left)} tensors)")
    return model.eval()


def load(
    path: str | Path, quantise: Literal["nf4", "int8"] | None = None, device: torch.device | None = None
) -> tuple[Any, BunnyProcessor]:
    """(model, processor) of a saved Bunny folder, in float32, for inference. Raises UserError if it is not one.

    quantise: the language model's linear layers in 4 or 8 bits, all else in bfloat16, on `device`.
    """
    quiet()
    if not (Path(path) / "config.json").exists():
        raise UserError(f"{path}: no model there (no config.json)", fix="give the folder that training wrote")
    if is_original(Path(path)):
        raise UserError(f"{path}: a model of the original Bunny", fix=f"take it over with `bunny import {path} -o OUT`")
    try:
        config = AutoConfig.from_pretrained(path)
        if not isinstance(config, BunnyConfig):
            raise UserError(f"{path}: not a Bunny folder (its model type is `{config.model_type}`)")
        how: dict[str, Any] = {"dtype": torch.float32}
        if quantise:
            kept = [".*vision_tower", ".*multi_modal_projector", "lm_head"]
            how = {"dtype": torch.bfloat16, "quantization_config": bits(quantise, kept), "device_map": {"": device}}
        model, info = AutoModelForImageTextToText.from_pretrained(path, output_loading_info=True, **how)
        processor = AutoProcessor.from_pretrained(path)
    except (OSError, ValueError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged, or not a whole model ({first})", fix="write or copy it again") from error
    nothing_lost(str(path), info)
    if not isinstance(processor, BunnyProcessor):
        raise UserError(f"{path}: not a Bunny folder ({type(processor).__name__})")
    return model.eval(), processor


def load_projector(model: Any, path: Path) -> None:
    """Put an aligned projector's weights in: a safetensors file of ours or an `mm_projector.bin` of the original.

    Raises UserError if the file is missing or of another shape or kind. A released file may leave out layers that this
    kind of projector has but never uses.
    """
    projector = model.model.multi_modal_projector
    try:
        table = open_tensors(path)
    except UserError as error:
        raise UserError(f"{path}: no readable projector there ({error.what})", fix="check `start_projector`") from None
    names = {name.removeprefix(PROJECTOR): name for name in table.info}
    mine = {name: tuple(tensor.shape) for name, tensor in projector.state_dict().items()}
    its = {name: table.info[old].shape for name, old in names.items()}
    missing = mine.keys() - its.keys() - set(getattr(projector, "unused", ()))
    if missing or any(mine.get(name) != shape for name, shape in its.items()):
        raise UserError(
            f"{path}: its tensors {its} do not fit the model's projector {mine}",
            fix="use the projector type, vision tower and language model it was aligned with",
        )
    state = {name: table.read(old).float() for name, old in names.items()}
    projector.load_state_dict({**projector.state_dict(), **state})


def with_fresh_projector(model: Any, seed: int) -> Any:
    """The same model, weights shared, but with a projector that has learnt nothing: an honest baseline."""
    fresh = copy.copy(model)
    fresh._modules = dict(model._modules)
    inner = copy.copy(model.model)
    inner._modules = dict(model.model._modules)
    inner._modules["multi_modal_projector"] = _fresh_projector(model.config, seed)
    fresh._modules["model"] = inner
    return fresh.eval()


def _fresh_projector(config: BunnyConfig, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_projector(config.projector_type, config.feature_width, config.text_config.hidden_size)
