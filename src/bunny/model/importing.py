"""A folder of the original Bunny becomes one of this Bunny, tensor by tensor, without ever holding the model.

In: `Original`. Out: a Hugging Face folder (`BunnyForConditionalGeneration`, processor, template) that `load` opens.
Every tensor is accounted for: what is missing, left over, or of another shape stops the import; what is left out on
purpose (the tower's dead last block and pooling head, the base's head bias) is named in the report.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, GenerationConfig

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.store import publish, write_atomic
from bunny.model import quiet
from bunny.model.config import BunnyConfig
from bunny.model.eva import eva_names, read_eva_checkpoint
from bunny.model.image_token import claim_image_token, words_of
from bunny.model.language_models import load_tokenizer, text_config
from bunny.model.loading import reading
from bunny.model.modeling import BunnyForConditionalGeneration
from bunny.model.original import PROJECTOR, TEMPLATES, TOWER, Original, find, open_original
from bunny.model.processor import BunnyProcessor
from bunny.model.projector import output_tokens
from bunny.model.tensor_views import Renamed, WithRows
from bunny.model.tensor_writing import write_tensors
from bunny.model.tensors import Joined, TensorInfo, TensorTable, open_tensors
from bunny.model.vision import left_on_purpose, picture_side, set_scales, tokens_of, vision_config

EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
RECORD = "import.json"
"""What an imported folder says of where it came from: the original's own settings, and what was left out."""


@dataclass(frozen=True)
class Imported:
    """What an import did. left_out: names of tensors that were not taken over, on purpose. dtype: of the weights."""

    kind: str
    tensors: int
    left_out: list[str]
    dtype: str
    template: str


def import_original(
    folder: Path,
    out: Path,
    template_of: Any,
    base: str | None = None,
    vision_tower: str | None = None,
    dtype: torch.dtype | None = None,
) -> Imported:
    """Write the folder's model to `out`. template_of: name -> (template as a mapping, chat template in Jinja).

    dtype: of the written weights; None: as stored (the sums of a LoRA and its base: float32). Raises UserError.
    """
    quiet()
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: there is something already", fix="choose another folder with -o")
    original = open_original(folder, base)
    tower = _tower(original, vision_tower)
    template = TEMPLATES.get(original.model_type, "bunny")
    config, processor, generation = _settings(original, tower, template_of(template))
    table, left_out = _table(original, tower, config)
    stored = {info.dtype for info in table.info.values()}
    written = dtype or _widest(stored)
    work = out.with_name(f".{out.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    write_tensors(table, work, written)
    config.dtype = written
    config.architectures = [BunnyForConditionalGeneration.__name__]
    config.save_pretrained(work)
    processor.save_pretrained(work)
    generation.save_pretrained(work)
    write_atomic(work / RECORD, json.dumps({"fields": dict(original.fields), "left_out": left_out}, indent=1))
    publish(work, out)
    log.info("%d tensors; left out on purpose: %d", len(table.info), len(left_out))
    return Imported(original.kind, len(table.info), left_out, str(written).removeprefix("torch."), template)


@dataclass(frozen=True)
class _Tower:
    """config: without the dead block. tensors: of the tower's own file or folder, None if the checkpoint holds them."""

    config: Any
    image_processor: Any
    tensors: TensorTable | None


def _tower(original: Original, reference: str | None) -> _Tower:
    """The vision tower that the checkpoint was made with. Its weights are read only where the checkpoint has none."""
    place = find(reference or original.fields.get("mm_vision_tower"), original.folder, "--vision-tower", "the tower")
    if place.is_file():
        config, _, processor = read_eva_checkpoint(place)
    else:
        with reading(str(place)):
            config = vision_config(AutoConfig.from_pretrained(place))
            processor = AutoImageProcessor.from_pretrained(place)
    return _Tower(config, processor, None if original.has_tower else tower_table(place))


def tower_table(place: Path) -> TensorTable:
    """The tensors of a tower's folder or EVA `.pt` file under the names that a checkpoint has behind TOWER."""
    table = open_tensors(place)
    names = {name.removeprefix("visual.").removeprefix("vision_tower."): name for name in table.info}
    if place.is_file():
        names = {new: old for new, old in names.items() if old.startswith("visual.")}
    return Renamed(table, names)


def _settings(
    original: Original, tower: _Tower, template: tuple[dict[str, Any], str]
) -> tuple[BunnyConfig, BunnyProcessor, GenerationConfig]:
    """Configuration, processor and generation settings of the new folder."""
    strategy, patches = tokens_of(tower.config, picture_side(tower.image_processor))
    if original.scales:
        set_scales(tower.image_processor, original.scales)
    text = text_config(original.language_fields)
    rows = original.tensors.info[_language_name("embed_tokens.weight")].rows
    plain = load_tokenizer(str(original.language), text)
    words = words_of(plain)
    if words > rows:
        fix = "give the language model it was trained on with --base"
        raise UserError(f"{original.folder}: {rows} rows for a tokenizer of {words} words", fix=fix)
    end = template[0]["assistant_turn"]["end"]
    if end in plain.get_vocab():
        plain.eos_token = end  # as the original sets it for Llama-3
    tokenizer, image = claim_image_token(plain, rows, rename=False)
    text.vocab_size = max(rows, image + 1)
    kind = str(original.fields["mm_projector_type"])
    config = BunnyConfig(
        vision_config=tower.config,
        text_config=text,
        projector_type=kind,
        s2_scales=list(original.scales),
        words=words,
        head_rows=rows,
        image_token_index=image,
        image_seq_length=output_tokens(kind, patches),
        vision_feature_layer=-1,
        vision_feature_select_strategy=strategy,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    if original.fields["mm_hidden_size"] != config.feature_width:
        what = f"{original.fields['mm_hidden_size']} channels, the tower here gives {config.feature_width}"
        raise UserError(f"{original.folder}: trained on {what}", fix="give its own tower with --vision-tower")
    processor = BunnyProcessor(
        tower.image_processor,
        tokenizer,
        image_seq_length=config.image_seq_length,
        image_aspect="pad" if original.fields.get("image_aspect_ratio") == "pad" else "square",
        template=template[0],
        chat_template=template[1],
        vision_feature_select_strategy=strategy,
    )
    return config, processor, _generation(original, plain, end, image)


def _generation(original: Original, tokenizer: Any, end: str, image: int) -> GenerationConfig:
    """When answers end: where the checkpoint (or its base) says, and at the template's end. No sampling defaults."""
    ends: list[int] = []
    for folder in (original.folder, original.language):
        if (folder / "generation_config.json").exists():
            said = GenerationConfig.from_pretrained(folder).eos_token_id
            ends = list(said) if isinstance(said, list) else [said] if said is not None else []
            break
    if original.model_type == "bunny-llama":
        ends = []  # the original overwrites Llama-3's own ends with the template's
    ends.append(tokenizer.convert_tokens_to_ids(end))
    return GenerationConfig(eos_token_id=sorted(set(ends)), pad_token_id=ends[-1], suppress_tokens=[image])


def _table(original: Original, tower: _Tower, config: BunnyConfig) -> tuple[TensorTable, list[str]]:
    """All tensors under this Bunny's names, and the names that are left out on purpose."""
    with torch.device("meta"):
        wanted = BunnyForConditionalGeneration(config).state_dict()
    names, left_out = _names(original.tensors.info, wanted, config)
    tables: list[TensorTable] = [Renamed(original.tensors, names)]
    if tower.tensors is not None:
        prefixed = {f"{TOWER}{name}": name for name in tower.tensors.info}
        own, more = _names(prefixed, wanted, config)
        tables.append(Renamed(tower.tensors, {new: prefixed[old] for new, old in own.items()}))
        left_out += more
    table: TensorTable = Joined(tables)
    tied = bool(config.text_config.tie_word_embeddings)
    for name in (EMBEDDING, HEAD):
        if name in table.info and (missing := config.text_config.vocab_size - table.info[name].rows) > 0:
            table = WithRows(table, name, torch.zeros(missing, *table.info[name].shape[1:]))
    if tied and HEAD in table.info:
        table = Renamed(table, {name: name for name in table.info if name != HEAD})
    _check(str(original.folder), {name: tuple(t.shape) for name, t in wanted.items()}, table.info, tied)
    return table, left_out


def _names(
    found: Mapping[str, Any], wanted: Mapping[str, Any], config: BunnyConfig
) -> tuple[dict[str, str], list[str]]:
    """(our name -> the original's, names left out). A name that nothing wants stays and is reported by `_check`."""
    names: dict[str, str] = {}
    left_out: list[str] = []
    for old in found:
        new = our_name(old, wanted, config)
        if new is None:
            left_out.append(old)
        else:
            names[new] = old
    return names, left_out


def our_name(old: str, wanted: Mapping[str, Any], config: BunnyConfig) -> str | None:
    """This Bunny's name for a tensor of the original's, None for what is left out on purpose."""
    if old.startswith(PROJECTOR):
        return "model.multi_modal_projector." + old.removeprefix(PROJECTOR)
    if old.startswith(TOWER):
        return _tower_name(old.removeprefix(TOWER), wanted, config.vision_config)
    return old if old.startswith("lm_head.") else _ours(old.removeprefix("model."))


def _tower_name(name: str, wanted: Mapping[str, Any], vision: Any) -> str | None:
    if vision.model_type == "eva02_vision":
        renamed = name if f"model.vision_tower.{name}" in wanted else eva_names(name, vision.num_hidden_layers)
        return None if renamed is None else f"model.vision_tower.{renamed}"
    if left_on_purpose(name, vision) or name.endswith("position_ids"):
        return None
    candidates = (name, name.removeprefix("vision_model."))
    return next(
        (f"model.vision_tower.{c}" for c in candidates if f"model.vision_tower.{c}" in wanted), f"{TOWER}{name}"
    )


def _ours(name: str) -> str:
    return f"model.language_model.{name}"


def _language_name(name: str) -> str:
    return f"model.{name}"


def _check(where: str, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, TensorInfo], tied: bool) -> None:
    """Raise UserError unless exactly the wanted tensors are there, in the wanted shapes."""
    missing = sorted(wanted.keys() - found.keys() - ({HEAD} if tied else set()))
    unread = sorted(found.keys() - wanted.keys())
    if missing or unread:
        parts = [
            f"{len(some)} {word}: {', '.join(some[:4])}"
            for word, some in (("missing", missing), ("unread", unread))
            if some
        ]
        raise UserError(f"{where}: {'; '.join(parts)}", fix="check the base model, the tower and the files")
    odd = [name for name, info in found.items() if info.shape != wanted[name]]
    if odd:
        shapes = f"{list(found[odd[0]].shape)}, not {list(wanted[odd[0]])}"
        raise UserError(f"{where}: {odd[0]} is {shapes} ({len(odd)} tensors)", fix="check the base model and the tower")


def _widest(dtypes: set[torch.dtype]) -> torch.dtype:
    kinds = [dtype for dtype in dtypes if dtype.is_floating_point]
    widest = kinds[0]
    for dtype in kinds[1:]:
        widest = torch.promote_types(widest, dtype)
    return widest
