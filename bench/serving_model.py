"""The folders that `bench/serving.py` serves: one random model, as a Bunny and as a stock Llava.

In: an empty folder. Out: `bunny/` and `llava/` in it, with the same weights and a tokenizer that writes every id, so
that whatever a random model says is text: ends and bytes are never the likeliest, every answer is as long as it may be.
The head has weights of its own (SmolLM2's are those of its embedding): else a random model repeats one word.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from bunny.core.recipe import ModelSection
from bunny.model.build import build
from bunny.text.template import Template

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
WORDS = """
user assistant system red green blue brown white black small large wooden round old young left right top bottom man
woman child dog cat horse car truck bus train table chair plate cup bottle window door tree flower street field water
sky house bench Is there a in the picture? What is on side of Which kind Answer with one word Describe everything
"""
LANGUAGE = {
    "full": {  # SmolLM2-135M
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rope_theta": 100000.0,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "vocab_size": 1024,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
    },
}
TOWER = {
    "full": {  # SigLIP-B/16-224
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
}


def write_models(folder: Path, size: str) -> tuple[Path, Path]:
    """(Bunny folder, Llava folder) of a random model."""
    bunny, llava = folder / "bunny", folder / "llava"
    model, processor = _bunny(folder / "parts", size)
    model.save_pretrained(bunny)
    processor.save_pretrained(bunny)
    config = LlavaConfig(
        vision_config=model.config.vision_config,
        text_config=model.config.text_config,
        image_token_index=model.config.image_token_id,
        image_seq_length=model.config.image_seq_length,
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    stock = LlavaForConditionalGeneration(config)
    names = {"projector.0.": "projector.linear_1.", "projector.2.": "projector.linear_2."}
    stock.load_state_dict({_renamed(name, names): tensor for name, tensor in model.state_dict().items()})
    stock.generation_config = model.generation_config
    stock.save_pretrained(llava)
    LlavaProcessor(
        processor.image_processor,
        processor.tokenizer,
        patch_size=model.config.vision_config.patch_size,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=processor.chat_template,
    ).save_pretrained(llava)
    return bunny, llava


def _renamed(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        name = name.replace(old, new)
    return name


def _bunny(folder: Path, size: str) -> tuple[Any, Any]:
    language_config, tower_config = LANGUAGE[size], TOWER[size]
    torch.manual_seed(0)
    tokenizer = every_id(int(language_config["vocab_size"]))
    ends = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 2}
    language = LlamaForCausalLM(LlamaConfig(**language_config, **ends))
    tower = SiglipVisionModel(SiglipVisionConfig(**tower_config))
    for model, spread in ((language, 0.06), (tower, 0.06)):
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.data.normal_(std=spread)
    language.lm_head.weight.data[: len(SPECIAL) + 256] = 0  # the logit 0 is never the highest of so many
    language.save_pretrained(folder / "language")
    tokenizer.save_pretrained(folder / "language")
    tower.save_pretrained(folder / "tower")
    side = {"height": tower_config["image_size"], "width": tower_config["image_size"]}
    SiglipImageProcessorPil(size=side).save_pretrained(folder / "tower")
    section = ModelSection(
        language_model=str(folder / "language"), vision_tower=str(folder / "tower"), image_aspect="square"
    )
    template = Template.named("chatml")
    return build(section, template.model_dump(), template.jinja(), seed=0)


def every_id(vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows a few words; the other ids are made-up words, which it only writes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(re.findall(r"\S+", WORDS))] * 50, trainer)
    tree = json.loads(tokenizer.to_str())
    known = tree["model"]["vocab"]
    known |= {f"Ġword{id}": id for id in range(len(known), vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(tree)),
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        extra_special_tokens=["<image>"],
    )
