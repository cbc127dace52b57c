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
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

from bunny.core.errors import UserError
from bunny.model.tensor_views import Renamed, WithLora
from bunny.model.tensors import ADAPTER_FILES, WEIGHT_FILES, Joined, TensorTable, open_tensors

PROJECTOR_FILE = "mm_projector.bin"
ADAPTER_CONFIG = "adapter_config.json"
TRAINED_BESIDE = "non_lora_trainables.bin"
TOWER = "model.vision_tower.vision_tower."
PROJECTOR = "model.mm_projector."
EMBEDDING = "model.embed_tokens.weight"

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
class Adapters:
    """Adapters. pairs: name of a weight -> names of its A and B in `table`. scaling: name of a weight -> alpha / r."""

    table: TensorTable
    pairs: Mapping[str, tuple[str, str]]
    scaling: Mapping[str, float]

    def on(self, weights: TensorTable) -> TensorTable:
        """The weights with the adapters added, in float32."""
        return WithLora(weights, self.table, self.pairs, self.scaling)

    def only(self, names: Collection[str]) -> Adapters:
        return Adapters(self.table, {name: pair for name, pair in self.pairs.items() if name in names}, self.scaling)


@dataclass(frozen=True)
class Original:
    """One folder of the original. tensors: under a whole checkpoint's names. language: folder of the tokenizer, and for
    `lora` and `projector` of the language model. fields: its config.json. left_out: names that are no weights of it.
    tower_adapters: for a tower whose weights are not here (it was frozen while it had adapters)."""

    folder: Path
    kind: Kind
    fields: Mapping[str, Any]
    tensors: TensorTable
    language: Path
    left_out: tuple[str, ...] = ()
    tower_adapters: Adapters | None = None

    @property
    def config(self) -> Path:
        """Where its settings stand, for messages."""
        return self.folder / CONFIG

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
        try:
            return tuple(int(part) for part in (written.split(",") if isinstance(written, str) else written))
        except (TypeError, ValueError):
            what = f"{self.config}: s2_scales `{written}` are no side lengths"
            raise UserError(what, fix='write them as in "384,768,1152"') from None

    @property
    def has_tower(self) -> bool:
        return any(name.startswith(TOWER) for name in self.tensors.info)


CONFIG = "config.json"
ADDED = (
    r"(mm_\w+|use_mm_proj|(tune|freeze)_mm_mlp_adapter|image_aspect_ratio|tokenizer_\w+|use_s2|s2_scales"
    r"|unfreeze_vision_tower|continuous_training|max_sequence_length|architectures|torch_dtype|dtype"
    r"|transformers_version|auto_map)$"
)
"""Fields of config.json that are not the language model's."""

NO_WEIGHT = "rotary_emb.inv_freq"
"""How tables end that old releases stored and that follow from the config."""


def open_original(folder: Path, base: str | None = None) -> Original:
    """The folder, whatever layout it has. base: the language model, for LoRA and projector-only folders.

    Raises UserError for a folder that is none of the original's, for files that are missing, and for adapters that do
    not fit.
    """
    fields = _settings(folder)
    whole = [name for name in WEIGHT_FILES if name not in ADAPTER_FILES and (folder / name).exists()]
    if (folder / ADAPTER_CONFIG).exists():
        if whole:
            what = f"{folder}: both a whole model ({whole[0]}) and adapters ({ADAPTER_CONFIG})"
            raise UserError(what, fix="leave in the folder what is to be imported")
        return _lora(folder, fields, base)
    if not whole and any((folder / name).exists() for name in ADAPTER_FILES):
        raise UserError(f"{folder}: adapters without {ADAPTER_CONFIG}", fix="copy the whole LoRA folder")
    if not whole and (folder / PROJECTOR_FILE).exists():
        language = find(base or fields.get("_name_or_path"), folder, "--base", "the base model")
        base_table, left_out = _language(language, folder, fields)
        projector = open_tensors(folder / PROJECTOR_FILE)
        return Original(folder, "projector", fields, _over(base_table, projector), language, left_out)
    return _whole(folder, fields, base)


def find(name: Any, folder: Path, option: str, what: str, weights: bool = True) -> Path:
    """A folder or file that a config names: as it is written, or beside the checkpoint; else from the hub.

    weights: whether its weights are needed too. Raises UserError that names the option which replaces it.
    """
    if not name or not isinstance(name, str):
        raise UserError(f"{folder}: it does not say what {what} is", fix=f"give it with {option}")
    if place := find_here(name, folder):
        return place
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _from_hub(name, folder, option, what, weights)
    raise UserError(f"{folder}: {what} `{name}` is not here", fix=f"say where it is with {option}")


def find_here(name: str, folder: Path) -> Path | None:
    """What `find` finds on this machine."""
    try:
        places = (Path(name).expanduser(), folder / name, folder.parent / name)
        return next((place for place in places if place.exists()), None)
    except (OSError, RuntimeError, ValueError):  # a name that no system knows: too long, of another user
        return None


def _from_hub(name: str, folder: Path, option: str, what: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.model", "*.txt", "*.jinja", *(["*.safetensors", "pytorch_model*.bin"] * weights)]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except LocalEntryNotFoundError:
        why = "no network, or HF_HUB_OFFLINE is set"
    except (OSError, ValueError, HfHubHTTPError) as error:
        why = first_line(error)
    raise UserError(
        f"{folder}: {what} `{name}` is neither here nor to be had from the hub ({why})",
        fix=f"say where it is with {option}",
    )


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line that is not too long."""
    return shorten((str(error).strip().splitlines() or [type(error).__name__])[0], 160, placeholder=" …")


def is_original(folder: Path) -> bool:
    """Whether a folder's config.json is one of the original's; a damaged one is not."""
    try:
        return _json(folder / CONFIG).get("model_type") in FAMILIES
    except UserError:
        return False


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", fix="give a folder that the original Bunny wrote")
    if not path.exists():
        raise UserError(f"{folder}: no {CONFIG} there", fix="give a folder that the original Bunny wrote")
    fields = _json(path)
    kind = fields.get("model_type")
    if kind == "bunny":
        raise UserError(f"{folder}: it is a folder of this Bunny already", fix="use it as it is")
    if not isinstance(kind, str) or kind not in FAMILIES:
        what = f"{path}: not of the original Bunny (model_type `{kind}`)"
        raise UserError(what, fix=f"what is imported has one of {', '.join(FAMILIES)}")
    wanted: Mapping[str, type] = {"mm_projector_type": str, "mm_hidden_size": int}
    if missing := [key for key in wanted if key not in fields]:
        raise UserError(f"{path}: no {', '.join(missing)}", fix="give a folder that the original Bunny wrote")
    if odd := [key for key, type_ in wanted.items() if not isinstance(fields[key], type_)]:
        raise UserError(f"{path}: {odd[0]} is `{fields[odd[0]]}`", fix="copy or download it again")
    return fields


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({first_line(error)})", fix="copy or download it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object", fix="copy or download it again")
    return content


def _whole(folder: Path, fields: dict[str, Any], base: str | None) -> Original:
    tokenizer = any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
    if not tokenizer and base is None:
        raise UserError(f"{folder}: no tokenizer there", fix="give the language model with --base")
    language = folder if tokenizer else find(base, folder, "--base", "the base model", weights=False)
    table, left_out = _without(open_tensors(folder), NO_WEIGHT)
    return Original(folder, "whole", fields, table, language, left_out)


def _without(table: TensorTable, *endings: str) -> tuple[TensorTable, tuple[str, ...]]:
    """(the table less the tensors whose names end so, their names)."""
    gone = tuple(name for name in table.info if name.endswith(endings))
    return Renamed(table, {name: name for name in table.info if name not in gone}), gone


def _language(language: Path, folder: Path, fields: Mapping[str, Any]) -> tuple[TensorTable, tuple[str, ...]]:
    """(base language model, what is left out). Its head's bias (phi) goes: the original's head has none and never
    trained with it. Raises UserError if it is not of the size that the folder was trained on."""
    if not language.is_dir():
        raise UserError(f"{language}: a file, not the base model's folder", fix="give its folder with --base")
    table, gone = _without(open_tensors(language), NO_WEIGHT, "lm_head.bias")
    if EMBEDDING not in table.info:
        raise UserError(f"{language}: no language model there (no {EMBEDDING})", fix="give the base model with --base")
    shape, wanted = table.info[EMBEDDING].shape, (fields.get("vocab_size"), fields.get("hidden_size"))
    if None not in wanted and shape != wanted:
        sizes = f"embeddings of {' x '.join(map(str, shape))}, {folder} was trained on {' x '.join(map(str, wanted))}"
        raise UserError(f"{language}: {sizes}", fix="give the base model it was trained on with --base")
    return table, gone


def _over(base: TensorTable, trained: TensorTable) -> TensorTable:
    """Both tables; where both hold a tensor (the base was a Bunny) the trained one counts."""
    kept = {name: name for name in base.info if name not in trained.info}
    return Joined([Renamed(base, kept), trained])


def _lora(folder: Path, fields: dict[str, Any], base: str | None) -> Original:
    """Base + what was trained whole beside the adapters, with the adapters added in float32."""
    settings = _adapter_settings(folder / ADAPTER_CONFIG)
    beside = folder / TRAINED_BESIDE
    if not beside.exists():
        raise UserError(f"{folder}: no {TRAINED_BESIDE} (the trained projector)", fix="copy the whole LoRA folder")
    file = next((folder / name for name in ADAPTER_FILES if (folder / name).exists()), None)
    if file is None:
        raise UserError(f"{folder}: no {' or '.join(ADAPTER_FILES)} there", fix="copy the whole LoRA folder")
    trained, adapters = _plain_names(open_tensors(beside)), _adapters(settings, file)
    language = find(base or settings.get("base_model_name_or_path"), folder, "--base", "the base model")
    base_table, left_out = _language(language, folder, fields)
    table = _over(base_table, trained)
    elsewhere = adapters.pairs.keys() - table.info.keys()
    tower = {name for name in elsewhere if name.startswith(TOWER)}
    if any(name.startswith(TOWER) for name in table.info):
        tower = set()  # it is here, so its adapters belong here
    if strangers := sorted(elsewhere - tower):
        shown = f"{strangers[0]} ({len(strangers)} tensors)"
        raise UserError(f"{folder}: adapters for {shown}, which nothing has", fix="give the right base with --base")
    merged = adapters.only(adapters.pairs.keys() - tower).on(table)
    return Original(folder, "lora", fields, merged, language, left_out, adapters.only(tower) if tower else None)


USUAL: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False,),
    "bias": ("none",),
    "modules_to_save": ([],),
    "fan_in_fan_out": (False,),
    "lora_bias": (False,),
    "use_qalora": (False,),
    "layer_replication": ([],),
    "alora_invocation_tokens": ([],),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),  # others change the base's weights too
}
"""Settings of adapters that are W + scaling · B @ A and nothing else; None and silence are usual everywhere."""


def _adapter_settings(path: Path) -> dict[str, Any]:
    """The adapter's config. Raises UserError for adapters that peft can merge and this cannot."""
    settings = _json(path)
    if odd := [key for key, usual in USUAL.items() if settings.get(key) not in (None, *usual)]:
        shown = ", ".join(f"{key} `{settings[key]}`" for key in odd)
        fix = "merge them with peft first, then import the whole model"
        raise UserError(f"{path}: adapters with {shown} are not the original's", fix=fix)
    patterns = settings.get("alpha_pattern") or {}
    try:
        {re.compile(pattern): float(alpha) for pattern, alpha in patterns.items()}
        float(settings["lora_alpha"])
    except (AttributeError, LookupError, TypeError, ValueError, re.error):
        what = f"{path}: lora_alpha `{settings.get('lora_alpha')}`, alpha_pattern `{patterns}` are no numbers"
        raise UserError(what, fix="copy or download it again") from None
    return settings


def _plain_names(table: TensorTable) -> TensorTable:
    """The names of a whole checkpoint, without what peft put around them."""
    names = {_plain(name): name for name in table.info}
    if twice := [name for name in table.info if names[_plain(name)] != name]:
        raise UserError(f"{getattr(table, 'path', '')}: {_plain(twice[0])} is there twice", fix="train it again")
    return Renamed(table, names)


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _adapters(settings: Mapping[str, Any], file: Path) -> Adapters:
    """The adapters in a file. Raises UserError if A or B of one is alone or something else is there."""
    table = open_tensors(file)
    halves: dict[str, dict[str, str]] = {}
    for name in table.info:
        match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", name)
        if not match:
            raise UserError(f"{file}: {name} is no LoRA weight", fix="merge it with peft first")
        halves.setdefault(f"{_plain(match.group(1))}.weight", {})[match.group(2)] = name
    if lonely := [name for name, pair in halves.items() if len(pair) < 2]:
        raise UserError(f"{file}: only half of the adapter of {lonely[0]}", fix="copy the LoRA folder again")
    if not halves:
        raise UserError(f"{file}: no adapter in it", fix="copy the LoRA folder again")
    pairs = {name: (pair["A"], pair["B"]) for name, pair in halves.items()}
    return Adapters(
        table, pairs, {name: _scaling(settings, name, table.info[down].rows) for name, (down, _) in pairs.items()}
    )


def _scaling(settings: Mapping[str, Any], name: str, rank: int) -> float:
    """alpha / r of one weight (rank-stabilised: alpha / sqrt(r)). Patterns fit a module's last names, as in peft."""
    module = name.removesuffix(".weight")
    patterns = settings.get("alpha_pattern") or {}
    own = [value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)]
    alpha = float(own[0] if own else settings["lora_alpha"])
    return alpha / math.sqrt(max(1, rank)) if settings.get("use_rslora") else alpha / max(1, rank)
