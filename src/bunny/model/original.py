"""What a folder written by the original Bunny holds: every layout becomes one table of tensors under its own names.

In: a folder (whole model, LoRA, or projector only), and where needed the base language model. Out: `Original`: the
settings of its config.json and a lazy table with the names of a whole checkpoint (`model.layers…`, `lm_head.weight`,
`model.mm_projector…`, `model.vision_tower.vision_tower…`). What a folder is follows from the files in it, never from
its name. Source: original-behaviour of BAAI-DCAI/Bunny (train.py, builder.py): what it saves and how it loads.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bunny.core.errors import UserError, nearest
from bunny.model.tensor_views import Renamed, WithLora
from bunny.model.tensors import Joined, TensorTable, open_tensors

PROJECTOR_FILE = "mm_projector.bin"
ADAPTER_CONFIG = "adapter_config.json"
TRAINED_BESIDE = "non_lora_trainables.bin"
TOWER = "model.vision_tower.vision_tower."
PROJECTOR = "model.mm_projector."

FAMILIES: Mapping[str, str] = {
    "bunny-phi": "phi",
    "bunny-phi3": "phi3",
    "bunny-stablelm": "stablelm_epoch",
    "bunny-qwen": "qwen2",
    "bunny-qwen2": "qwen2",
    "bunny-minicpm": "minicpm",
    "bunny-llama": "llama",
}
"""The original's model types -> the language model's own."""

TEMPLATES: Mapping[str, str] = {"bunny-minicpm": "minicpm", "bunny-llama": "llama"}
"""The original's model types -> conversation template; the others use `bunny`."""

Kind = Literal["whole", "lora", "projector"]


@dataclass(frozen=True)
class Original:
    """One folder of the original. tensors: under a whole checkpoint's names. language: folder of the tokenizer, and for
    `lora` and `projector` of the language model. fields: its config.json."""

    folder: Path
    kind: Kind
    fields: Mapping[str, Any]
    tensors: TensorTable
    language: Path

    @property
    def model_type(self) -> str:
        return str(self.fields["model_type"])

    @property
    def language_fields(self) -> dict[str, Any]:
        """The language model's own configuration, without what Bunny added."""
        own = {key: value for key, value in self.fields.items() if not re.match(ADDED, key)}
        own["model_type"] = FAMILIES[self.model_type]
        if own["model_type"] == "stablelm_epoch" and "rope_pct" not in own:
            own["model_type"] = "stablelm"
        return own

    @property
    def scales(self) -> tuple[int, ...]:
        """S2 side lengths in pixels; empty without S2. A folder that is silent about them used the published ones."""
        if not self.fields.get("use_s2"):
            return ()
        written = self.fields.get("s2_scales", "384,768,1152")
        return tuple(int(part) for part in (written.split(",") if isinstance(written, str) else written))

    @property
    def has_tower(self) -> bool:
        return any(name.startswith(TOWER) for name in self.tensors.info)


ADDED = (
    r"(mm_\w+|use_mm_proj|(tune|freeze)_mm_mlp_adapter|image_aspect_ratio|tokenizer_\w+|use_s2|s2_scales"
    r"|unfreeze_vision_tower|continuous_training|max_sequence_length|architectures|torch_dtype|dtype"
    r"|transformers_version|auto_map)$"
)
"""Fields of config.json that are not the language model's."""


def open_original(folder: Path, base: str | None = None) -> Original:
    """The folder, whatever layout it has. base: the language model, for LoRA and projector-only folders.

    Raises UserError for a folder that is none of the original's, for files that are missing, and for adapters that do
    not fit.
    """
    fields = _settings(folder)
    if (folder / ADAPTER_CONFIG).exists():
        language = find(base or _adapter(folder).get("base_model_name_or_path"), folder, "--base", "the base model")
        return Original(folder, "lora", fields, _with_adapters(folder, language), language)
    if (folder / PROJECTOR_FILE).exists():
        language = find(base or fields.get("_name_or_path"), folder, "--base", "the base model")
        projector = open_tensors(folder / PROJECTOR_FILE)
        return Original(folder, "projector", fields, Joined([_language(language), projector]), language)
    tokenizer = any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
    if not tokenizer and base is None:
        raise UserError(f"{folder}: no tokenizer there", fix="give the language model with --base")
    language = folder if tokenizer else find(base, folder, "--base", "the base model")
    return Original(folder, "whole", fields, _whole(folder), language)


def find(name: str | None, folder: Path, option: str, what: str) -> Path:
    """A folder or file that a config names: as it is written, or beside the checkpoint; else from the hub.

    Raises UserError that names the option which replaces it.
    """
    if not name:
        raise UserError(f"{folder}: it does not say what {what} is", fix=f"give it with {option}")
    for place in (Path(name).expanduser(), folder / name, folder.parent / name):
        if place.exists():
            return place
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _from_hub(name, folder, option, what)
    raise UserError(f"{folder}: {what} `{name}` is not here", fix=f"say where it is with {option}")


def _from_hub(name: str, folder: Path, option: str, what: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "pytorch_model*.bin"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{folder}: {what} `{name}` is neither here nor to be had from the hub ({first})",
            fix=f"say where it is with {option}",
        ) from None


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder}: no config.json there", fix="give a folder that the original Bunny wrote")
    fields = _json(path)
    kind = fields.get("model_type")
    if kind == "bunny":
        raise UserError(f"{folder}: it is a folder of this Bunny already", fix="use it as it is")
    if kind not in FAMILIES:
        raise UserError(f"{path}: not of the original Bunny (model_type `{kind}`)", fix=nearest(str(kind), FAMILIES))
    missing = [key for key in ("mm_projector_type", "mm_hidden_size") if key not in fields]
    if missing:
        raise UserError(f"{path}: no {', '.join(missing)}", fix="give a folder that the original Bunny wrote")
    return fields


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})", fix="copy or download it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object", fix="copy or download it again")
    return content


def _whole(folder: Path) -> TensorTable:
    """A whole checkpoint; `rotary_emb.inv_freq` of old releases is no weight (it follows from the config)."""
    table = open_tensors(folder)
    return Renamed(table, {name: name for name in table.info if not name.endswith("rotary_emb.inv_freq")})


def _language(folder: Path) -> TensorTable:
    """The base language model. Its head's bias (phi) goes: the original's head has none and never trained with it."""
    table = open_tensors(folder)
    gone = ("rotary_emb.inv_freq", "lm_head.bias")
    return Renamed(table, {name: name for name in table.info if not name.endswith(gone)})


def _adapter(folder: Path) -> dict[str, Any]:
    return _json(folder / ADAPTER_CONFIG)


def _with_adapters(folder: Path, language: Path) -> TensorTable:
    """Base + what was trained whole beside the adapters, with the adapters added in float32."""
    settings = _adapter(folder)
    unusual = {"use_dora": False, "bias": "none", "modules_to_save": None, "fan_in_fan_out": False}
    if odd := [key for key, usual in unusual.items() if settings.get(key, usual) not in (usual, None)]:
        fix = "merge them with peft first, then import the whole model"
        raise UserError(f"{folder / ADAPTER_CONFIG}: adapters with {', '.join(odd)} are not the original's", fix=fix)
    beside = folder / TRAINED_BESIDE
    if not beside.exists():
        raise UserError(f"{folder}: no {TRAINED_BESIDE} (the trained projector)", fix="copy the whole LoRA folder")
    trained = _plain_names(open_tensors(beside))
    table = Joined([_language(language), trained])
    adapter = open_tensors(folder)
    pairs = _pairs(adapter, folder)
    if strangers := sorted(pairs.keys() - table.info.keys()):
        shown = f"{strangers[0]} ({len(strangers)} tensors)"
        raise UserError(f"{folder}: adapters for {shown}, which nothing has", fix="give the right base with --base")
    return WithLora(table, adapter, pairs, {name: _scaling(settings, name, adapter, pairs) for name in pairs})


def _plain_names(table: TensorTable) -> TensorTable:
    """The names of a whole checkpoint, without what peft put around them."""
    return Renamed(table, {_plain(name): name for name in table.info})


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _pairs(adapter: TensorTable, folder: Path) -> dict[str, tuple[str, str]]:
    """Name of a weight -> names of its A and B. Raises UserError if one of them is alone or something else is there."""
    halves: dict[str, dict[str, str]] = {}
    for name in adapter.info:
        match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", name)
        if not match:
            raise UserError(f"{folder}: {name} is no LoRA weight", fix="merge it with peft first")
        halves.setdefault(f"{_plain(match.group(1))}.weight", {})[match.group(2)] = name
    if lonely := [name for name, pair in halves.items() if len(pair) < 2]:
        raise UserError(f"{folder}: only half of the adapter of {lonely[0]}", fix="copy the LoRA folder again")
    return {name: (pair["A"], pair["B"]) for name, pair in halves.items()}


def _scaling(
    settings: Mapping[str, Any], name: str, adapter: TensorTable, pairs: Mapping[str, tuple[str, str]]
) -> float:
    """alpha / r of one weight (rank-stabilised: alpha / sqrt(r)); r is the adapter's own."""
    module = name.removesuffix(".weight")
    patterns = settings.get("alpha_pattern") or {}
    own = [value for pattern, value in patterns.items() if re.search(rf"(^|\.){pattern}$", module)]
    alpha = float(own[0] if own else settings["lora_alpha"])
    rank = adapter.info[pairs[name][0]].rows
    return alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank
