"""Vision tower + projector + language model become one Bunny.

In: the recipe's `model` section. Out: (model, processor), weights loaded whole: every missing or unread tensor is an
error. A saved Bunny folder is opened with `load`.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from bunny.core.errors import UserError
from bunny.core.recipe import ModelSection
from bunny.model import quiet
from bunny.model.bundled import resolve
from bunny.model.config import BunnyConfig
from bunny.model.image_token import claim_image_token
from bunny.model.modeling import BunnyForConditionalGeneration
from bunny.model.processor import BunnyProcessor
from bunny.model.projector import build_projector, output_tokens

DEAD_LAYER_TOWERS = ("siglip_vision_model", "siglip2_vision_model", "clip_vision_model")
"""Towers whose last block the original never reads (hidden_states[-2]): it is left out instead of thrown away."""


OTHER_HALF = re.compile(r"^(text_model|logit_scale|logit_bias|text_projection|visual_projection)\b|(^|\.)head\.")
"""Tensors of a SigLIP or CLIP folder that its vision tower does not have: the text half and the pooling head."""


def build(section: ModelSection, template: dict[str, Any], chat_template: str, seed: int) -> tuple[Any, BunnyProcessor]:
    """A model whose projector is fresh (drawn from `seed`) and whose other parts are the released ones."""
    quiet()
    tower, image_processor = load_tower(section.vision_tower, section.image_size)
    _check_layer(tower, section)
    language_model, tokenizer = load_language_model(section.language_model)
    tokenizer, image_token_id = claim_image_token(tokenizer)
    for part in (tower, language_model):
        part.config._name_or_path = ""  # a folder of this machine is no part of the model
    head = language_model.get_output_embeddings()
    if image_token_id >= head.out_features:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the new row is drawn around the mean of the others
            language_model.resize_token_embeddings(image_token_id + 1)
        head = language_model.get_output_embeddings()
    strategy, patches = _seen(tower, picture_side(image_processor))
    tokens = output_tokens(section.projector, patches)
    config = BunnyConfig(
        vision_config=copy.deepcopy(tower.config),
        text_config=copy.deepcopy(language_model.config),
        projector_type=section.projector,
        image_token_index=image_token_id,
        image_seq_length=tokens,
        vision_feature_layer=section.vision_feature_layer,
        vision_feature_select_strategy=strategy,
    )
    model = _assemble(config, tower, language_model, head, seed)
    model.generation_config = copy.deepcopy(language_model.generation_config)
    model.generation_config.suppress_tokens = [image_token_id]
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


def _check_layer(tower: nn.Module, section: ModelSection) -> None:
    blocks = getattr(tower.config, "num_hidden_layers", 0)  # a convolutional tower has its last grid only
    if not -blocks - 1 <= section.vision_feature_layer <= blocks:
        raise UserError(
            f"vision_feature_layer={section.vision_feature_layer}: {section.vision_tower} has {blocks} blocks here",
            fix=f"choose from {-blocks - 1} to {blocks}",
        )


def _seen(tower: Any, side: int) -> tuple[str, int]:
    """(`default` if class or register tokens come before the patches, else `full`; patches of a prepared picture)."""
    with torch.device("meta"):  # shapes only
        twin = AutoModel.from_config(tower.config)
        states = twin(torch.empty(1, 3, side, side), output_hidden_states=True).hidden_states
    patches = (side // tower.config.patch_size) ** 2
    return "full" if states[-1].shape[1] == patches else "default", patches


def _assemble(config: BunnyConfig, tower: nn.Module, language_model: Any, head: nn.Linear, seed: int) -> Any:
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


def load(path: str | Path) -> tuple[Any, BunnyProcessor]:
    """(model, processor) of a saved Bunny folder, in float32, for inference. Raises UserError if it is not one."""
    quiet()
    if not (Path(path) / "config.json").exists():
        raise UserError(f"{path}: no model there (no config.json)", fix="give the folder that training wrote")
    try:
        config = AutoConfig.from_pretrained(path)
        if not isinstance(config, BunnyConfig):
            raise UserError(f"{path}: not a Bunny folder (its model type is `{config.model_type}`)")
        model, info = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
        processor = AutoProcessor.from_pretrained(path)
    except (OSError, ValueError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: damaged, or not a whole model ({first})", fix="write or copy it again") from error
    _nothing_lost(str(path), info)
    if not isinstance(processor, BunnyProcessor):
        raise UserError(f"{path}: not a Bunny folder ({type(processor).__name__})")
    return model.eval(), processor


def load_projector(model: Any, path: Path) -> None:
    """Put an aligned projector's weights in. Raises UserError if the file is missing or of another shape or kind.

    A released file may leave out layers that this kind of projector has but never uses.
    """
    from safetensors.torch import load_file

    projector = model.model.multi_modal_projector
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: no readable projector there ({error})", fix="check `start_projector`") from None
    mine = {name: tuple(tensor.shape) for name, tensor in projector.state_dict().items()}
    its = {name: tuple(tensor.shape) for name, tensor in state.items()}
    missing = mine.keys() - its.keys() - set(getattr(projector, "unused", ()))
    if missing or any(mine.get(name) != shape for name, shape in its.items()):
        raise UserError(
            f"{path}: its tensors {its} do not fit the model's projector {mine}",
            fix="use the projector type, vision tower and language model it was aligned with",
        )
    projector.load_state_dict({**projector.state_dict(), **{name: tensor.float() for name, tensor in state.items()}})


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
        return build_projector(config.projector_type, config.vision_config.hidden_size, config.text_config.hidden_size)


def load_tower(reference: str, image_size: int | None = None) -> tuple[Any, Any]:
    """(vision tower without a dead last layer, image processor) of a folder, hub name or `bundled:` name."""
    quiet()
    folder = resolve(reference)
    with _reading(reference):
        config = AutoConfig.from_pretrained(folder)
        config = getattr(config, "vision_config", config)
        if config.model_type in DEAD_LAYER_TOWERS:
            config.num_hidden_layers -= 1
            config.vision_use_head = False
        tower, info = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(folder)
    unread = [key for key in info["unexpected_keys"] if not _left_on_purpose(key, config)]
    _nothing_lost(reference, info | {"unexpected_keys": unread})
    side = picture_side(processor)
    if image_size is not None and image_size != side:
        raise UserError(f"{reference} takes {side} px, not {image_size}", fix="leave image_size out")
    return tower.eval(), processor


def _left_on_purpose(key: str, config: Any) -> bool:
    """Whether a tensor of the folder belongs to what a tower leaves out: dead layer, pooling head, text half."""
    block = re.search(r"\.layers\.(\d+)\.", key)
    if block is not None and config.model_type in DEAD_LAYER_TOWERS:
        return bool(int(block.group(1)) >= config.num_hidden_layers)
    return bool(OTHER_HALF.search(key))


def picture_side(image_processor: Any) -> int:
    """Pixels of the square that comes out of an image processor; DINOv2's is not its config's `image_size`."""
    settings = image_processor.to_dict()
    size = settings["crop_size" if settings.get("do_center_crop") else "size"]
    return int(size.get("height") or size["shortest_edge"])


def load_language_model(reference: str) -> tuple[Any, Any]:
    """(causal language model, fast tokenizer) of a folder, hub name or `bundled:` name."""
    folder = resolve(reference)
    with _reading(reference):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    _nothing_lost(reference, info)
    if not tokenizer.is_fast:
        raise UserError(f"{reference}: a fast tokenizer is needed (tokenizer.json)")
    return model.eval(), tokenizer


def _nothing_lost(where: str, info: dict[str, Any]) -> None:
    lost = {kind: sorted(keys) for kind, keys in info.items() if keys and kind != "error_msgs"}
    for kind, keys in lost.items():
        raise UserError(f"{where}: {len(keys)} {kind.replace('_', ' ')}: {', '.join(map(str, keys[:4]))}")


class _reading:
    """Turns transformers' "cannot find" errors into one line."""

    def __init__(self, reference: str) -> None:
        self.reference = reference

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError)):
            first = str(error).strip().splitlines()[0]
            raise UserError(
                f"cannot load {self.reference}: {first}",
                fix="give a folder, a hub name (with a network) or `bundled:NAME`",
            ) from error
