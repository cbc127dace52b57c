"""Tiny checkpoints in the original Bunny's own layouts, and what the models in them compute, by the plainest code.

`Twin` holds a model as transformers' own modules: tower, projector, language model. Its `save_…` methods write what the
original's training writes; `logits` is the reference. Every number is random, every size made up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from bunny.model.eva import load_eva
from tests.model.test_eva import eva_tensors
from tests.tiny import byte_level, metaspace, save_tower

SIDE, PATCH = 32, 8
"""Of the SigLIP and CLIP towers, in pixels; the EVA tower's are 12 and 4."""

COMMON = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES: dict[str, tuple[type, type, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "bunny-phi": (
        PhiConfig,
        PhiForCausalLM,
        {"num_key_value_heads": 4, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "qk_layernorm": False},
        {"partial_rotary_factor": 0.5, "rope_theta": 10000.0},
        {"partial_rotary_factor": 0.5},
    ),
    "bunny-phi3": (
        Phi3Config,
        Phi3ForCausalLM,
        {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "pad_token_id": 0, "sliding_window": 2047},
        {"rope_theta": 10000.0, "rope_scaling": None, "original_max_position_embeddings": 4096},
        {},
    ),
    "bunny-stablelm": (
        StableLmConfig,
        StableLmForCausalLM,
        {"num_key_value_heads": 2, "use_qkv_bias": True},
        {"rope_pct": 0.25, "norm_eps": 1e-5, "rope_theta": 10000},
        {"partial_rotary_factor": 0.25, "layer_norm_eps": 1e-5},
    ),
    "bunny-qwen": (Qwen2Config, Qwen2ForCausalLM, {"num_key_value_heads": 4}, {"rope_theta": 1e6}, {}),
    "bunny-qwen2": (Qwen2Config, Qwen2ForCausalLM, {"num_key_value_heads": 2}, {"rope_theta": 1e6}, {}),
    "bunny-minicpm": (
        LlamaConfig,
        LlamaForCausalLM,
        {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "hidden_size": 48, "num_hidden_layers": 3},
        {"rope_theta": 10000.0, "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16, "attention_bias": False},
        {},
    ),
    "bunny-llama": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 2, "rms_norm_eps": 1e-5},
                    {"rope_theta": 500000.0, "rope_scaling": None, "pretraining_tp": 1}, {}),
}  # fmt: skip
"""Model type -> config and model of transformers; fields of both, of the original alone, of transformers alone."""


@dataclass
class Twin:
    """A model of the original. root: where the base (`base_llm`) and the tower (`tower` or `eva.pt`) lie."""

    root: Path
    family: str
    language: Any
    tokenizer: Any
    tower: nn.Module
    tower_kind: str
    projector: nn.Sequential
    scales: tuple[int, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def tower_name(self) -> str:
        return "eva.pt" if self.tower_kind == "eva" else "tower"

    @property
    def side(self) -> int:
        return self.scales[-1] if self.scales else 12 if self.tower_kind == "eva" else SIDE

    @property
    def words(self) -> int:
        return len(self.tokenizer)

    @property
    def rows(self) -> int:
        return int(self.language.get_input_embeddings().weight.shape[0])

    @property
    def image_id(self) -> int:
        """The first row that is no word."""
        return self.words

    # What the model computes, without a thought for speed.

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) pixels -> (B, N, channels): what the original hands to its projector."""
        if not self.scales:
            return self._seen(pixels)
        size, parts = self.scales[0], []
        for scale in self.scales:
            large = nn.functional.interpolate(pixels.float(), (scale, scale), mode="bicubic", align_corners=False)
            rows = []
            for top in range(0, scale, size):
                row = [self._seen(large[:, :, top : top + size, left : left + size]) for left in range(0, scale, size)]
                rows.append(torch.cat([self._grid(tile) for tile in row], dim=3))
            whole = torch.cat(rows, dim=2)  # (B, C, many, many)
            parts.append(nn.functional.interpolate(whole, (size // PATCH, size // PATCH), mode="area"))
        return torch.cat(parts, dim=1).flatten(2).transpose(1, 2)

    def _grid(self, tokens: Tensor) -> Tensor:
        side = math.isqrt(tokens.shape[1])
        return tokens.transpose(1, 2).unflatten(2, (side, side))

    def _seen(self, pixels: Tensor) -> Tensor:
        states = self.tower(pixels, output_hidden_states=True).hidden_states
        if self.tower_kind == "eva":
            return states[-1][:, 1:]  # the tower of this package ends before the last block
        return states[-2][:, 1:] if self.tower_kind == "clip" else states[-2]

    @torch.no_grad()
    def logits(self, before: Sequence[int], pixels: Tensor, after: Sequence[int]) -> Tensor:
        """Of words, a picture, words: (1, length, rows)."""
        embed = self._reference().get_input_embeddings()
        seen = self.projector(self.features(pixels))
        whole = torch.cat(
            [embed(torch.tensor([list(before)])), seen * self._embedding_scale, self._words(after)], dim=1
        )
        return self._reference()(inputs_embeds=whole).logits

    def _words(self, ids: Sequence[int]) -> Tensor:
        return self._reference().get_input_embeddings()(torch.tensor([list(ids)]))  # type: ignore[no-any-return]

    @property
    def _embedding_scale(self) -> float:
        """MiniCPM scales words and pictures alike; in its twin the words' weights are scaled beforehand."""
        return float(FAMILIES[self.family][3].get("scale_emb", 1))

    def _reference(self) -> Any:
        """The language model; MiniCPM's multipliers are put into the weights of a Llama."""
        more = FAMILIES[self.family][3]
        if "scale_emb" not in more:
            return self.language
        config = self.language.config.__class__(**self.language.config.to_dict() | {"tie_word_embeddings": False})
        twin = type(self.language)(config).eval()
        state = {name: tensor.clone() for name, tensor in self.language.state_dict().items()}
        depth = more["scale_depth"] / math.sqrt(config.num_hidden_layers)
        for name in state:
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                state[name] *= depth
        state["model.embed_tokens.weight"] *= more["scale_emb"]
        state["lm_head.weight"] *= more["dim_model_base"] / config.hidden_size
        twin.load_state_dict(state)
        return twin

    # What the original writes.

    def config(self) -> dict[str, Any]:
        """config.json as the original writes it."""
        fields = self.base_fields() | {
            "model_type": self.family,
            "mm_vision_tower": self.tower_name,
            "mm_projector_type": "mlp2x_gelu",
            "mm_hidden_size": self.projector[0].in_features,
            "use_mm_proj": True,
            "image_aspect_ratio": "pad",
            "tokenizer_padding_side": "right",
            "tokenizer_model_max_length": 2048,
            "use_s2": bool(self.scales),
            "unfreeze_vision_tower": False,
            "tune_mm_mlp_adapter": False,
            "transformers_version": "4.41.2",
            "torch_dtype": "float16",
        }
        if self.scales:
            fields["s2_scales"] = ",".join(map(str, self.scales))
        return fields | self.changes

    def base_fields(self) -> dict[str, Any]:
        """The language model's part of config.json, as transformers 4 and the original's own code name things."""
        text = self.language.config
        _, _, both, theirs, _ = FAMILIES[self.family]
        names = (*COMMON, *both, "vocab_size", "max_position_embeddings", "tie_word_embeddings", "hidden_act")
        fields = {name: getattr(text, name) for name in names}
        fields |= theirs | {"eos_token_id": self.tokenizer.eos_token_id, "bos_token_id": None, "use_cache": True}
        return {"_name_or_path": "base_llm", "architectures": ["SomethingForCausalLM"], **fields}

    def state(self) -> dict[str, Tensor]:
        """Tensors of a whole checkpoint."""
        names = dict(self.language.state_dict())
        if self.language.config.tie_word_embeddings:
            names.pop("lm_head.weight")
        names.pop("lm_head.bias", None)  # the original's phi has none
        return names | self.projector_state() | self.tower_state()

    def projector_state(self) -> dict[str, Tensor]:
        return {f"model.mm_projector.{name}": tensor for name, tensor in self.projector.state_dict().items()}

    def tower_state(self, trimmed: bool = False) -> dict[str, Tensor]:
        """Of SigLIP and CLIP: whole, or as the hub's code keeps it: without last block and head. Of EVA, which the
        original cannot save: nothing."""
        if self.tower_kind == "eva":
            return {}
        blocks = self.tower.config.num_hidden_layers
        last, prefix = f".layers.{blocks - 1}.", "" if _named_whole(self.tower) else "vision_model."
        return {
            f"model.vision_tower.vision_tower.{prefix}{name}": tensor
            for name, tensor in self.tower.state_dict().items()
            if not trimmed or (last not in f".{name}" and "head." not in name)
        }

    def save_whole(self, folder: Path, form: str = "safetensors", state: Mapping[str, Tensor] | None = None) -> Path:
        """A whole checkpoint with its tokenizer. form: safetensors, bin, or either with `sharded ` before it."""
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder, dict(state or self.state()), form)
        self.tokenizer.save_pretrained(folder)
        return self.save_config(folder)

    def save_config(self, folder: Path) -> Path:
        (folder / "config.json").write_text(json.dumps(self.config(), indent=2))
        return folder

    def save_projector(self, folder: Path) -> Path:
        """What pretraining leaves."""
        folder.mkdir(parents=True)
        torch.save(self.projector_state(), folder / "mm_projector.bin")
        return self.save_config(folder)

    def save_lora(
        self,
        folder: Path,
        adapters: Mapping[str, Tensor],
        form: str = "safetensors",
        beside: Any = None,
        **settings: Any,
    ) -> Path:
        """What LoRA tuning leaves. beside: tensors for non_lora_trainables.bin; None: the projector's."""
        folder.mkdir(parents=True)
        named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in adapters.items()}
        if form == "safetensors":
            save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        else:
            torch.save(named, folder / "adapter_model.bin")
        whole = self.projector_state() if beside is None else beside
        torch.save({f"base_model.model.{name}": t for name, t in whole.items()}, folder / "non_lora_trainables.bin")
        usual = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none"}
        usual |= {"base_model_name_or_path": "base_llm", "use_rslora": False, "alpha_pattern": {}, "use_dora": False}
        (folder / "adapter_config.json").write_text(json.dumps(usual | {"modules_to_save": None} | settings))
        return self.save_config(folder)

    @torch.no_grad()
    def add_adapters(self, scaling: Any, tower: bool = False, rank: int = 2) -> dict[str, Tensor]:
        """Adapters of every linear layer, added to the weights here. scaling: module name -> alpha / r.

        tower: also of the layers of the tower that are named as those of the language model.
        """
        found = {
            name: module
            for name, module in self.language.named_modules()
            if isinstance(module, nn.Linear) and name != "lm_head"
        }
        ends = {name.rpartition(".")[2] for name in found}
        if tower:
            prefix = "model.vision_tower.vision_tower." + ("" if _named_whole(self.tower) else "vision_model.")
            found |= {
                prefix + name: module
                for name, module in self.tower.named_modules()
                if isinstance(module, nn.Linear) and name.rpartition(".")[2] in ends
            }
        draw = torch.Generator().manual_seed(7)
        state: dict[str, Tensor] = {}
        for name, module in found.items():
            a = torch.randn(rank, module.in_features, generator=draw) * 0.2
            b = torch.randn(module.out_features, rank, generator=draw) * 0.2
            module.weight += scaling(name) * b @ a
            state |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        return state

    @torch.no_grad()
    def train_tower(self) -> None:
        """The tower is no longer the one in its folder, but for what no gradient reaches: the last block, the head."""
        draw = torch.Generator().manual_seed(8)
        for tensor in self.tower_state(trimmed=True).values():
            if tensor.is_floating_point():
                tensor += 0.05 * torch.randn(tensor.shape, generator=draw)


def make(
    root: Path,
    family: str = "bunny-phi",
    tower: str = "siglip",
    scales: tuple[int, ...] = (),
    spare: int = 9,
    tied: bool | None = None,
    **sizes: Any,
) -> Twin:
    """A model, with its base and its tower saved in `root`. spare: rows of the vocabulary that are no words."""
    tokenizer = metaspace() if family == "bunny-minicpm" else byte_level(eos="<|endoftext|>")
    config, model, both, theirs, own = FAMILIES[family]
    rope = {key: value for key, value in (theirs | own).items() if key in ("rope_theta", "partial_rotary_factor")}
    own = {key: value for key, value in own.items() if key not in rope}
    tied = family == "bunny-minicpm" if tied is None else tied
    fields = COMMON | both | own | {"hidden_act": "silu"} | both | {"tie_word_embeddings": tied} | sizes
    text = config(
        vocab_size=len(tokenizer) + spare,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", **rope},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **fields,
    )
    torch.manual_seed(0)
    language = model(text).eval()
    for name, parameter in language.named_parameters():
        parameter.data.normal_(1 if "norm" in name and name.endswith("weight") else 0, 0.2)
    if getattr(language.lm_head, "bias", None) is not None:
        language.lm_head.bias.data.zero_()
    seen, width = _tower(root, tower)
    channels = width * max(1, len(scales))
    projector = nn.Sequential(nn.Linear(channels, text.hidden_size), nn.GELU(), nn.Linear(*[text.hidden_size] * 2))
    twin = Twin(root, family, language, tokenizer, seen, tower, projector, scales)
    save_base(twin, root / "base_llm")
    return twin


def save_base(twin: Twin, folder: Path, form: str = "safetensors") -> Path:
    """The language model alone."""
    folder.mkdir(parents=True)
    state = {name: t for name, t in twin.state().items() if not name.startswith(("model.mm_", "model.vision_tower."))}
    write_weights(folder, state, form)
    kind = {"bunny-stablelm": "stablelm_epoch", "bunny-qwen": "qwen2"}
    fields = twin.base_fields() | {"model_type": kind.get(twin.family, twin.family.removeprefix("bunny-"))}
    (folder / "config.json").write_text(json.dumps(fields))
    twin.tokenizer.save_pretrained(folder)
    return folder


def _tower(root: Path, kind: str) -> tuple[Any, int]:
    """(the whole tower as a module, its channels), after saving it in `root`."""
    root.mkdir(parents=True, exist_ok=True)
    if kind == "eva":
        torch.save(eva_tensors(), root / "eva.pt")
        return load_eva(root / "eva.pt")[0], 16
    save_tower(root / "tower", kind)
    tower = AutoModel.from_pretrained(root / "tower").eval()
    return tower, tower.config.hidden_size


def with_text_half(tower: Path) -> None:
    """The folder of a CLIP tower becomes one of the whole CLIP, as the hub has it."""
    vision = AutoModel.from_pretrained(tower)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    whole = CLIPModel(CLIPConfig(text_config=text | {"vocab_size": 99}, vision_config=vision.config.to_dict()))
    state = {name if _named_whole(vision) else f"vision_model.{name}": t for name, t in vision.state_dict().items()}
    whole.load_state_dict(state, strict=False)
    whole.save_pretrained(tower)


def _named_whole(tower: Any) -> bool:
    return all(name.startswith("vision_model.") for name in tower.state_dict())


def write_weights(folder: Path, state: dict[str, Tensor], form: str) -> None:
    """model.safetensors or pytorch_model.bin, or three shards of it and their index."""
    stem, ending = ("model", "safetensors") if form.endswith("safetensors") else ("pytorch_model", "bin")
    state = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    names = sorted(state)
    shards = [names[number::3] for number in range(3)] if form.startswith("sharded ") else [names]
    places: dict[str, str] = {}
    for number, some in enumerate(shards, 1):
        file = f"{stem}.{ending}" if len(shards) == 1 else f"{stem}-{number:05}-of-00003.{ending}"
        part = {name: state[name] for name in some}
        if ending == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(some, file)
    if len(shards) > 1:
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
