"""A folder of this Bunny becomes one that the original Bunny loads: its names, its config.json, its tokenizer.

In: a saved Bunny of one of the original's seven families, and the tower's own folder or `.pt` file: from there come the
parts that this Bunny leaves out (dead last block, pooling head), because the original's loader asks for them. Out: a
whole checkpoint in the original's layout. Raises UserError for what the original has no word for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.store import write_atomic
from bunny.core.types import IMAGE_MARK
from bunny.model import quiet
from bunny.model.config import BunnyConfig
from bunny.model.importing import EMBEDDING, HEAD, RECORD, check_out, of_file, our_name, published, tower_table
from bunny.model.original import FAMILIES, PROJECTOR, TOWER, find
from bunny.model.tensor_views import Cast, Cut, Renamed
from bunny.model.tensor_writing import write_tensors
from bunny.model.tensors import Joined, TensorTable, open_tensors

ARCHITECTURES: Mapping[str, str] = {
    "phi": "BunnyPhiForCausalLM",
    "phi3": "BunnyPhi3ForCausalLM",
    "stablelm": "BunnyStableLMForCausalLM",
    "qwen2": "BunnyQwen2ForCausalLM",
    "granite": "BunnyMiniCPMForCausalLM",
    "llama": "BunnyLlamaForCausalLM",
}
"""transformers' model types -> the original's classes."""

TYPES: Mapping[str, str] = {
    **{family: kind for kind, family in FAMILIES.items()},
    "stablelm": "bunny-stablelm",
    "granite": "bunny-minicpm",
}
TOKENIZER, TOKENIZER_CONFIG, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
LANGUAGE, MULTIMODAL, OUR_TOWER = "model.language_model.", "model.multi_modal_projector.", "model.vision_tower."


def export_original(
    folder: Path, out: Path, vision_tower: str | None = None, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """Write the folder's model to `out` in the original's layout; returns the facts. dtype: None: as stored."""
    quiet()
    check_out(out, folder)
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no model there (no config.json)", fix="give a folder that training or import wrote")
    with of_file(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(config, BunnyConfig):
        what = f"{folder}: not a Bunny folder (its model type is `{config.model_type}`)"
        raise UserError(what, fix="give a folder that training or import wrote")
    kind = config.text_config.model_type
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{folder}: the original has no language model of type `{kind}`", fix=f"it has {known}")
    record = _record(folder)
    reference = vision_tower or record.get("mm_vision_tower")
    place = find(reference, folder, "--vision-tower", "the tower")
    table, trained = _table(folder, config, tower_table(place))
    fields = _fields(folder, config, record) | {"mm_vision_tower": reference, "unfreeze_vision_tower": trained}
    written = {str(dtype or info.dtype).removeprefix("torch.") for info in table.info.values()}
    fields["torch_dtype"] = written.pop() if len(written) == 1 else "float32"
    with published(out) as work:
        write_tensors(table, work, dtype)
        write_atomic(work / "config.json", json.dumps(fields, indent=2, sort_keys=True) + "\n")
        _write_tokenizer(folder, work, config)
    if "lora" in out.name.lower():
        log.warning("%s: the original takes a folder with `lora` in its name for adapters: rename it", out)
    if not _told_by_name(str(reference), config.vision_config.model_type):
        log.warning("%s: the original tells towers by name: `sig`, then `eva`, then `clip`: rename it", reference)
    return {"folder": str(folder), "out": str(out), "tensors": len(table.info), "vision_tower_trained": trained}


def _told_by_name(reference: str, kind: str) -> bool:
    """Whether the original, which goes by a path's letters alone, builds the right kind of tower for it."""
    found = next((word for word in ("sig", "eva", "clip") if word in reference.lower()), "nothing")
    return found in kind


def _record(folder: Path) -> dict[str, Any]:
    """The fields of the original's config.json that the folder was imported from; empty for a model made here."""
    path = folder / RECORD
    with of_file(path):
        return dict(json.loads(path.read_text(encoding="utf-8"))["fields"]) if path.exists() else {}


def _table(folder: Path, config: BunnyConfig, tower: TensorTable) -> tuple[TensorTable, bool]:
    """(all tensors under the original's names, whether the tower differs from its own folder)."""
    own = open_tensors(folder)
    names: dict[str, str] = {}
    for name in own.info:
        if name.startswith(LANGUAGE):
            names["model." + name.removeprefix(LANGUAGE)] = name
        elif name.startswith(MULTIMODAL):
            names[PROJECTOR + name.removeprefix(MULTIMODAL)] = name
        elif not name.startswith(OUR_TOWER):
            names[name] = name
    rows = config.head_rows or config.text_config.vocab_size
    short = Cut(own, {name: rows for name in (EMBEDDING, HEAD) if name in own.info})
    shared, dead = _tower_names(own, tower, config)
    trained = any(not torch.equal(own.read(mine).float(), tower.read(its).float()) for its, mine in shared.items())
    kind = own.info[EMBEDDING].dtype
    parts = [
        Renamed(short, names),
        Renamed(own, {TOWER + its: mine for its, mine in shared.items()}),
        Renamed(Cast(tower, dict.fromkeys(dead, kind)), {TOWER + its: its for its in dead}),
    ]
    return Joined(parts), trained


def _tower_names(own: TensorTable, tower: TensorTable, config: BunnyConfig) -> tuple[dict[str, str], list[str]]:
    """(tower folder's name -> ours, names that only the tower folder has)."""
    shared: dict[str, str] = {}
    dead: list[str] = []
    for name in tower.info:
        mine = our_name(TOWER + name, own.info, config)
        if mine in own.info:
            shared[name] = str(mine)
        elif name.startswith("vision_model.") or config.vision_config.model_type == "eva02_vision":
            dead.append(name)
    here = {name for name in own.info if name.startswith(OUR_TOWER)}
    if lost := sorted(here - set(shared.values())):
        raise UserError(
            f"the tower's folder has no {lost[0]} ({len(lost)} tensors)", fix="give the right --vision-tower"
        )
    return shared, dead


def _fields(folder: Path, config: BunnyConfig, record: Mapping[str, Any]) -> dict[str, Any]:
    """The original's config.json: the language model's fields as transformers 4 wrote them, and what Bunny adds."""
    text = config.text_config
    processor = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    added = {
        "mm_hidden_size": config.feature_width,
        "mm_projector_type": config.projector_type,
        "use_mm_proj": True,
        "use_s2": bool(config.s2_scales),
        "image_aspect_ratio": processor.get("image_aspect", "pad"),
        "tokenizer_padding_side": "right",
        "tokenizer_model_max_length": 2048,
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": False,
        "mm_projector_lr": None,
        "use_cache": True,
    }
    if config.s2_scales:
        added["s2_scales"] = ",".join(map(str, config.s2_scales))
    own = language_fields(text)
    own["vocab_size"] = config.head_rows or text.vocab_size
    own = {key: value for key, value in own.items() if value is not None or key not in record}
    kept = {key: value for key, value in record.items() if key not in own}
    model_type = TYPES[text.model_type]
    return (
        added
        | own
        | {key: value for key, value in kept.items() if key not in added or key.startswith(("tokenizer_", "tune_"))}
        | {"model_type": record.get("model_type", model_type), "architectures": [ARCHITECTURES[text.model_type]]}
    )


def language_fields(text: Any) -> dict[str, Any]:
    """A language model's configuration under the names that transformers 4 and the original's own code read."""
    fields = text.to_dict()
    rope = fields.pop("rope_parameters", None) or {}
    fields |= {key: value for key, value in rope.items() if key in ("rope_theta", "partial_rotary_factor")}
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    kind = scaling.pop("rope_type", "default")
    fields["rope_scaling"] = None if kind == "default" else {**scaling, "type": kind}  # no other field may be there
    for key in ("dtype", "transformers_version", "_name_or_path", "model_type", "layer_types", "head_dim"):
        fields.pop(key, None)
    if text.model_type == "granite":
        fields = _minicpm_fields(fields)
    if text.model_type == "stablelm":
        fields["rope_pct"] = fields.pop("partial_rotary_factor")
        fields["norm_eps"] = fields.pop("layer_norm_eps")
        fields.pop("rope_scaling")
    if text.model_type == "phi3" and text.sliding_window:
        fields["sliding_window"] -= 1  # it counts the positions before a token
    return dict(fields)


def _minicpm_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Granite's multipliers under MiniCPM's names."""
    width, depth = fields["hidden_size"], math.sqrt(fields["num_hidden_layers"])
    attention = fields.pop("attention_multiplier") * math.sqrt(width // fields["num_attention_heads"])
    if abs(attention - 1) > 1e-6:
        raise UserError("this Granite scales attention as MiniCPM cannot", fix="the original has no such model")
    scale = {
        "scale_emb": fields.pop("embedding_multiplier"),
        "scale_depth": round(fields.pop("residual_multiplier") * depth, 12),
        "dim_model_base": round(width / fields.pop("logits_scaling")),
    }
    return fields | scale


def _write_tokenizer(folder: Path, out: Path, config: BunnyConfig) -> None:
    """The tokenizer as transformers 4 reads it, without the `<image>` token where that was added; where answers end."""
    AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    tree, settings = (_read(out / name) for name in (TOKENIZER, TOKENIZER_CONFIG))
    added = config.image_token_id >= config.words
    if added:
        tree["added_tokens"] = [token for token in tree["added_tokens"] if token["content"] != IMAGE_MARK]
        settings.get("added_tokens_decoder", {}).pop(str(config.image_token_id), None)
    if "merges" in tree["model"]:
        tree["model"]["merges"] = _joined(tree["model"]["merges"], folder)
    more = settings.pop("extra_special_tokens", None)
    if isinstance(more, list) and (kept := [token for token in more if not added or token != IMAGE_MARK]):
        settings["additional_special_tokens"] = kept
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 4 knows no other that reads just this file
    for key in ("processor_class", "backend", "is_local", "local_files_only", "chat_template", "auto_map"):
        settings.pop(key, None)
    write_atomic(out / TOKENIZER, json.dumps(tree, ensure_ascii=False))
    write_atomic(out / TOKENIZER_CONFIG, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    (out / "chat_template.jinja").unlink(missing_ok=True)
    ends = {key: value for key, value in _read(folder / GENERATION).items() if key.endswith("_token_id")}
    if isinstance(ends.get("eos_token_id"), list) and len(ends["eos_token_id"]) == 1:
        (ends["eos_token_id"],) = ends["eos_token_id"]
    if isinstance(ends.get("eos_token_id"), list):
        ends.setdefault("pad_token_id", ends["eos_token_id"][0])  # the original would pad with the list
    if config.text_config.bos_token_id is not None:
        ends["bos_token_id"] = config.text_config.bos_token_id
    write_atomic(out / GENERATION, json.dumps(ends, indent=2) + "\n")


def _joined(merges: list[Any], folder: Path) -> list[str]:
    """BPE merges as tokenizers wrote them before 0.20, and as the original's reads them: `a b`, not [`a`, `b`]."""
    for merge in merges:
        if not isinstance(merge, str) and any(" " in part for part in merge):
            raise UserError(f"{folder}: its tokenizer merges {merge}: the original's cannot have words with blanks")
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
