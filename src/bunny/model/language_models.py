"""Language models: a folder, hub name or `bundled:` name becomes a causal language model and its tokenizer.

Configurations that came with their own code (MiniCPM, the first StableLM-2) are read without it: their arithmetic is
that of families transformers has, under other names. The tables below say which field is which.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from bunny.core.errors import UserError
from bunny.model import quiet
from bunny.model.bundled import resolve
from bunny.model.loading import nothing_lost, reading


def _minicpm(fields: dict[str, Any]) -> dict[str, Any]:
    """MiniCPM's multipliers under Granite's names (MiniCPM: scale_emb, scale_depth, dim_model_base)."""
    depth = fields.pop("scale_depth") / math.sqrt(fields["num_hidden_layers"])
    return {
        "tie_word_embeddings": True,  # MiniCPM's default, where its file is silent
        **fields,
        "model_type": "granite",
        "embedding_multiplier": fields["scale_emb"],
        "residual_multiplier": depth,
        "attention_multiplier": 1 / math.sqrt(fields["hidden_size"] // fields["num_attention_heads"]),
        "logits_scaling": fields["hidden_size"] / fields["dim_model_base"],
    }


def _stablelm_epoch(fields: dict[str, Any]) -> dict[str, Any]:
    """The first release of StableLM-2 under the names of transformers' StableLm."""
    return {
        **fields,
        "model_type": "stablelm",
        "partial_rotary_factor": fields["rope_pct"],
        "layer_norm_eps": fields["norm_eps"],
        "use_parallel_residual": False,
    }


def _phi3(fields: dict[str, Any]) -> dict[str, Any]:
    """Phi-3's window as transformers now counts it: with the token itself. The original counts what lies before it."""
    window = fields.get("sliding_window")
    return fields | ({"sliding_window": window + 1} if window else {})


OWN_CODE: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "minicpm": _minicpm,
    "phi3": _phi3,
    "stablelm_epoch": _stablelm_epoch,
}
"""Model types that transformers does not have, or reads otherwise than their own code did -> their fields under the
names of the family whose arithmetic it is."""

FOREIGN = ("scale_emb", "dim_model_base", "rope_pct", "norm_eps", "auto_map", "_name_or_path")
"""Fields that only the original code reads."""


ARCHITECTURES: Mapping[str, str] = {"MiniCPMForCausalLM": "minicpm"}
"""Classes of published config.json files that name no model type -> the type (MiniCPM-2B of openbmb)."""


def text_config(fields: Mapping[str, Any]) -> Any:
    """The transformers configuration of a language model's config.json. Raises UserError for an unknown model type, and
    for fields that are missing or make no sense."""
    kind = str(_model_type(fields))
    try:
        known = OWN_CODE.get(kind, dict)(dict(fields))
        family = known.pop("model_type", kind)
        known = {key: value for key, value in known.items() if key not in FOREIGN}
        if family in CONFIG_MAPPING:
            return CONFIG_MAPPING[family](**known)
    except KeyError as error:
        raise UserError(f"a language model of type `{kind}` without the field {error}") from error
    except (ArithmeticError, AttributeError, StrictDataclassError, TypeError, ValueError) as error:
        words = shorten(str(error), 160, placeholder=" …")
        raise UserError(f"a language model of type `{kind}` cannot have these fields: {words}") from error
    raise UserError(f"a language model of type `{kind}` is not known to this transformers", fix="upgrade transformers")


def _model_type(fields: Mapping[str, Any]) -> str | None:
    """What config.json says, or what its class is known to be; never a guess from the folder's name."""
    classes = fields.get("architectures") or ()
    return fields.get("model_type") or next((ARCHITECTURES[name] for name in classes if name in ARCHITECTURES), None)


def load_language_model(reference: str, quantise: Literal["nf4", "int8"] | None = None) -> tuple[Any, Any]:
    """(causal language model, fast tokenizer) of a folder, hub name or `bundled:` name.

    quantise: its linear layers in 4 or 8 bits by bitsandbytes, all else in bfloat16; default: float32.
    """
    quiet()
    folder = resolve(reference)
    how: dict[str, Any] = {"dtype": torch.float32}
    if quantise:
        how = {"dtype": torch.bfloat16, "quantization_config": bits(quantise)}
    with reading(reference):
        config = _config_of(folder)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, config=config, output_loading_info=True, trust_remote_code=False, **how
        )
    nothing_lost(reference, info)
    return model.eval(), load_tokenizer(folder, config)


def bits(quantise: str, skip: Sequence[str] | None = None) -> Any:
    """The settings of QLoRA (Dettmers et al., 2023): NormalFloat 4, its scales quantised too; or LLM.int8().

    skip: patterns of the names of modules that stay as they are; none: transformers' choice.
    """
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise UserError(f"`quantise: {quantise}` needs bitsandbytes", fix="pip install 'bunny-vlm[gpu]'")
    if quantise == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=skip,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def tokenizer_of(reference: str) -> Any:
    """The tokenizer that `load_language_model` gives, without the weights."""
    quiet()
    folder = resolve(reference)
    with reading(reference):
        config = _config_of(folder)
    return load_tokenizer(folder, config)


def load_tokenizer(folder: str, config: Any) -> Any:
    """The fast tokenizer of a folder or hub name, never by its own code. Raises UserError if there is none."""
    with reading(folder):
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False)
        except ValueError as error:  # its class is code in the folder: tokenizer.json says all that is needed
            tokenizer = _without_its_class(folder, error)
        except Exception as error:  # tokenizers raises nothing narrower
            raise _no_tokenizer(folder, error) from error
    if not tokenizer.is_fast:
        raise UserError(f"{folder}: a fast tokenizer is needed (tokenizer.json)")
    return tokenizer


def _without_its_class(folder: str, error: ValueError) -> Any:
    from transformers.utils import cached_file

    if cached_file(folder, "tokenizer.json", _raise_exceptions_for_missing_entries=False) is None:
        raise _no_tokenizer(folder, error) from error
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:
        raise _no_tokenizer(folder, error) from error


def _no_tokenizer(folder: str, error: Exception) -> UserError:
    """Why there is no tokenizer. Of some releases it is code, such as Arcade100k of the first StableLM-2."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    path = Path(folder)
    if not path.is_dir() or (path / "tokenizer.json").exists():
        return UserError(f"{folder}: no tokenizer can be read there ({first})", fix="copy or download it again")
    settings, kind = path / "tokenizer_config.json", "none"
    if settings.exists():
        kind = str(json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class"))
    return UserError(
        f"{folder}: no tokenizer.json there, and its tokenizer ({kind}) cannot be had without it",
        fix="put the tokenizer.json of a later release of the same model into the folder",
    )


def _config_of(folder: str) -> Any:
    """The configuration in a folder or on the hub; without its code where it has some."""
    from transformers.utils import cached_file

    path = cached_file(folder, "config.json")
    fields = json.loads(Path(path).read_text(encoding="utf-8"))
    kind = _model_type(fields)
    if kind is None:  # transformers would look for a family's name in the path
        raise UserError(f"{path}: no model_type", fix="give a language model's folder")
    if kind in OWN_CODE:
        return text_config(fields)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return getattr(config, "text_config", config)
