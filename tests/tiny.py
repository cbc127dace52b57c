"""Tiny random models, tokenizers and folders: what the tests of text, model, train and infer are made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    StableLmConfig,
)

ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|end_of_text|>", "</s>")
SENTENCES = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "USER: what is this? ASSISTANT: a red circle on a blue field",
    "user system assistant yes no red green blue circle square",
    "Is there a circle in the picture? Answer with yes or no.",
]
FAMILIES: dict[str, tuple[type, dict[str, Any]]] = {
    "llama": (LlamaConfig, {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, {"num_key_value_heads": 2}),
    "phi": (PhiConfig, {}),
    "phi3": (Phi3Config, {}),
    "stablelm": (StableLmConfig, {"num_key_value_heads": 4}),
}


def byte_level(specials: Sequence[str] = ENDS, eos: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    """Byte-level BPE, as of GPT-2, SmolLM2, Qwen, Llama-3; adds no token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=eos)


def metaspace() -> PreTrainedTokenizerFast:
    """Sentencepiece-like BPE with byte fallback, as of Llama-2, Phi-3, MiniCPM; a blank before every text, and BOS."""
    base = ["<unk>", "<s>", *ENDS]
    letters = sorted({letter for sentence in SENTENCES for letter in sentence.replace(" ", "▁")})
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=460, special_tokens=[*base, *words], initial_alphabet=letters, show_progress=False
    )
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only
    trained.train_from_iterator(SENTENCES, trainer)
    kept = [AddedToken(token, special=True, normalized=False) for token in base]
    tree = json.loads(trained.to_str()) | {"added_tokens": [], "pre_tokenizer": None}
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    tokenizer.add_special_tokens(kept)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    )


def language_model(family: str, vocabulary: int, seed: int = 0) -> Any:
    """A random causal language model of 2 layers, 32 wide, with weights large enough that answers differ."""
    kind, more = FAMILIES[family]
    config = kind(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=2,
        **more,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.data.normal_(std=0.25)
    return model.eval()


def save_language_model(folder: Path, family: str = "llama", tokenizer: Any = None) -> Path:
    """A folder with a tiny language model and its tokenizer."""
    tokenizer = tokenizer or byte_level()
    language_model(family, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tower(folder: Path, kind: str = "siglip") -> Path:
    """A folder with a tiny vision tower for 32 px pictures, 8 px patches (4 x 4 = 16 tokens), and its processor."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    square = {"height": 32, "width": 32}
    torch.manual_seed(1)
    if kind == "siglip":
        tower: Any = SiglipVisionModel(SiglipVisionConfig(**sizes, intermediate_size=32))
        SiglipImageProcessorPil(size=square).save_pretrained(folder)
    elif kind == "clip":
        tower = CLIPVisionModel(CLIPVisionConfig(**sizes, intermediate_size=32))
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    else:
        tower = Dinov2Model(Dinov2Config(**sizes, mlp_ratio=2))
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    for name, parameter in tower.named_parameters():
        if "norm" not in name:
            parameter.data.normal_(std=0.2)
    tower.save_pretrained(folder)
    return folder
