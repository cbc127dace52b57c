"""A folder of the original Bunny becomes one of this Bunny, tensor by tensor, without ever holding the model.

In: `Original`. Out: a Hugging Face folder (`BunnyForConditionalGeneration`, processor, template) that `load` opens.
Every tensor is accounted for: what is missing, left over, or of another shape stops the import; what is left out on
purpose (the tower's dead last block and pooling head, the base's head bias) is named in the report.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from bunny.model.modeling import BunnyForConditionalGeneration
from bunny.model.original import EMBEDDING as THEIR_EMBEDDING
from bunny.model.original import PROJECTOR, TEMPLATES, TOWER, Original, find, find_here, first_line, open_original
from bunny.model.original_towers import published_tower
from bunny.model.processor import BunnyProcessor
from bunny.model.projector import output_tokens
from bunny.model.tensor_views import Renamed, WithRows
from bunny.model.tensor_writing import write_tensors
from bunny.model.tensors import Joined, TensorInfo, TensorTable, open_tensors
from bunny.model.vision import (
    DEAD_LAYER_TOWERS,
    left_on_purpose,
    picture_side,
    set_scales,
    tokens_of,
    vision_config,
)

EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
RECORD = "import.json"
"""What an imported folder says of where it came from: the original's own settings, and what was left out."""

WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Kinds of numbers that a checkpoint's weights may have; others are quantised and mean nothing without their scales."""

Template = tuple[dict[str, Any], str]
"""A template as a mapping, and its chat template in Jinja."""


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
    template_of: Callable[[str], Template],
    base: str | None = None,
    vision_tower: str | None = None,
    dtype: torch.dtype | None = None,
) -> Imported:
    """Write the folder's model to `out`. template_of: the template of a name.

    dtype: of the written weights; None: as stored (the sums of a LoRA and its base: float32). Raises UserError.
    """
    quiet()
    check_out(out)
    original = open_original(folder, base)
    tower = _tower(original, vision_tower)
    check_out(out, folder, original.language, *([tower.place] if tower.place else []))
    template = TEMPLATES.get(original.model_type, "bunny")
    config, processor, generation = _settings(original, tower, template_of(template))
    table, left_out = _table(original, tower, config)
    written = dtype or _widest({info.dtype for info in table.info.values()})
    config.dtype = written
    config.architectures = [BunnyForConditionalGeneration.__name__]
    with published(out) as work:
        write_tensors(table, work, written)
        for part in (config, processor, generation):
            part.save_pretrained(work)
        write_atomic(work / RECORD, json.dumps({"fields": dict(original.fields), "left_out": left_out}, indent=1))
    log.info("%d tensors; left out on purpose: %d", len(table.info), len(left_out))
    return Imported(original.kind, len(table.info), left_out, str(written).removeprefix("torch."), template)


def check_out(out: Path, *sources: Path) -> None:
    """Raise UserError if there is something at `out`, or if it lies inside a folder that is read."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: there is something already", fix="choose another folder with -o")
    for source in sources:
        if out.resolve().is_relative_to(source.resolve()):
            raise UserError(f"{out}: it lies inside {source}, which is read", fix="choose another folder with -o")


@contextmanager
def published(out: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `out` if all goes well; else nothing is left.

    Raises UserError where it cannot be written. What a killed process left is cleared away.
    """
    final = out.resolve()  # behind a link is the folder that is meant
    work = final.with_name(f".{final.name}.work")
    try:
        shutil.rmtree(work, ignore_errors=True)
        yield work
        publish(work, final)
    except UserError:
        raise
    except Exception as error:
        full = os.strerror(errno.ENOSPC)  # tokenizers and safetensors have their own errors, with these words in them
        if not isinstance(error, OSError) and full not in str(error):
            raise
        what = f"{getattr(error, 'filename', None) or out}: {getattr(error, 'strerror', None) or full}"
        raise UserError(what, fix="make room there or choose another folder with -o") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class _Tower:
    """config: without the dead block. tensors: of the tower's own file or folder, None if the checkpoint holds them.
    place: that file or folder, if one was read."""

    config: Any
    image_processor: Any
    tensors: TensorTable | None
    place: Path | None


def _tower(original: Original, reference: str | None) -> _Tower:
    """The vision tower that the checkpoint was made with. Its weights are read only where the checkpoint has none."""
    name = reference or original.fields.get("mm_vision_tower")
    known = published_tower(str(name))
    if known and original.has_tower and find_here(str(name), original.folder) is None:
        return _Tower(vision_config(known[0]), known[1], None, None)
    place = find(name, original.folder, "--vision-tower", "the tower", weights=not original.has_tower)
    if place.is_file():
        config, _, processor = read_eva_checkpoint(place)
    else:
        config, processor = _tower_settings(place)
    return _Tower(config, processor, None if original.has_tower else tower_table(place), place)


def _tower_settings(place: Path) -> tuple[Any, Any]:
    """(configuration without the dead block, image processor) of a tower's folder; no code of it is run."""
    fix = "give the tower's own folder with --vision-tower"
    try:
        fields = json.loads((place / "config.json").read_text(encoding="utf-8"))
        if not fields.get("model_type"):  # transformers would look for a family's name in the path
            raise UserError(f"{place}/config.json: no model_type", fix=fix)
        config = vision_config(AutoConfig.from_pretrained(place, trust_remote_code=False))
        processor = AutoImageProcessor.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise UserError(f"{place}: no vision tower can be read there ({first_line(error)})", fix=fix) from error
    if config.model_type not in DEAD_LAYER_TOWERS:
        kinds = ", ".join(DEAD_LAYER_TOWERS)
        raise UserError(f"{place}: a `{config.model_type}` is no tower of the original's ({kinds}, EVA)", fix=fix)
    config._name_or_path = ""  # a folder of this machine is no part of the model
    return config, processor


def tower_table(place: Path) -> TensorTable:
    """The tensors of a tower's folder or EVA `.pt` file under the names that a checkpoint has behind TOWER."""
    table = open_tensors(place)
    if place.is_file():
        names = {"model." + name.removeprefix("visual."): name for name in table.info if name.startswith("visual.")}
    else:
        names = {name.removeprefix("vision_tower."): name for name in table.info}
        if not any(name.startswith("vision_model.") for name in names):  # as transformers 5 saves a tower alone
            names = {f"vision_model.{name}": old for name, old in names.items()}
    return Renamed(table, names)


def _settings(
    original: Original, tower: _Tower, template: Template
) -> tuple[BunnyConfig, BunnyProcessor, GenerationConfig]:
    """Configuration, processor and generation settings of the new folder."""
    strategy, patches = tokens_of(tower.config, picture_side(tower.image_processor))
    width = tower.config.hidden_size * max(1, len(original.scales))
    if original.fields["mm_hidden_size"] != width:
        what = f"trained on {original.fields['mm_hidden_size']} channels, the tower here gives {width}"
        raise UserError(f"{original.folder}: {what}", fix="give its own tower with --vision-tower")
    if original.scales:
        set_scales(tower.image_processor, original.scales)
    with of_file(original.config):
        text = text_config(original.language_fields)
    plain, rows = _tokenizer(original, text)
    words, end = words_of(plain), template[0]["assistant_turn"]["end"]
    if end in plain.get_vocab():
        plain.eos_token = end  # as the original sets it for Llama-3
    tokenizer, image = claim_image_token(plain, rows, rename=False)
    text.vocab_size = max(rows, image + 1)
    kind = original.fields["mm_projector_type"]
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
    processor = BunnyProcessor(
        tower.image_processor,
        tokenizer,
        image_seq_length=config.image_seq_length,
        image_aspect="pad" if original.fields.get("image_aspect_ratio") == "pad" else "square",
        template=template[0],
        chat_template=template[1],
        vision_feature_select_strategy=strategy,
    )
    return config, processor, _generation(original, plain, image)


@contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Errors name the file that the settings came from."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error.what}", fix=error.fix or "copy or download it again") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        what = f"{path}: no model can be made of it ({first_line(error)})"
        raise UserError(what, fix="copy or download it again") from error


def _tokenizer(original: Original, text: Any) -> tuple[Any, int]:
    """(tokenizer, rows of the embeddings). Raises UserError if it has more words than there are rows."""
    if THEIR_EMBEDDING not in original.tensors.info:
        what = f"{original.folder}: no {THEIR_EMBEDDING} among {len(original.tensors.info)} tensors"
        raise UserError(what, fix="copy or download it again")
    rows = original.tensors.info[THEIR_EMBEDDING].rows
    tokenizer = load_tokenizer(str(original.language), text)
    if (words := words_of(tokenizer)) > rows:
        fix = "give the language model it was trained on with --base"
        raise UserError(f"{original.folder}: {rows} rows for a tokenizer of {words} words", fix=fix)
    return tokenizer, rows


def _generation(original: Original, tokenizer: Any, image: int) -> GenerationConfig:
    """When answers end: where the checkpoint (or its base) says, and at the template's end. No sampling defaults."""
    ends: list[int] = []
    for folder in (original.folder, original.language):
        if (path := folder / "generation_config.json").exists():
            with of_file(path):
                said = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
                ends = [int(id) for id in (said if isinstance(said, list) else [said]) if id is not None]
            break
    if tokenizer.eos_token_id is not None:
        ends.append(tokenizer.eos_token_id)
    if not ends:
        what = f"{original.language}: nothing there says where an answer ends"
        raise UserError(what, fix="set eos_token in its tokenizer_config.json")
    return GenerationConfig(eos_token_id=sorted(set(ends)), pad_token_id=ends[-1], suppress_tokens=[image])


def _table(original: Original, tower: _Tower, config: BunnyConfig) -> tuple[TensorTable, list[str]]:
    """All tensors under this Bunny's names, and the names that are left out on purpose, each once."""
    with of_file(original.config), torch.device("meta"):
        wanted = BunnyForConditionalGeneration(config).state_dict()
    source = original.tensors
    if tower.tensors is not None:
        own: TensorTable = Renamed(tower.tensors, {f"{TOWER}{name}": name for name in tower.tensors.info})
        source = Joined([source, original.tower_adapters.on(own) if original.tower_adapters else own])
    names, left_out = _names(source.info, wanted, config)
    left_out += original.left_out
    tied = bool(config.text_config.tie_word_embeddings)
    if tied and HEAD in names:
        left_out.append(names.pop(HEAD))  # the original's loader overwrites it with the embeddings too
    table: TensorTable = Renamed(source, names)
    for name in {EMBEDDING, HEAD} & names.keys():
        missing = config.text_config.vocab_size - config.head_rows
        if missing and table.info[name].rows == config.head_rows:
            table = WithRows(table, name, torch.zeros(missing, *table.info[name].shape[1:]))
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
        elif new in names:
            raise UserError(f"{old} and {names[new]} are the same tensor", fix="copy or download the checkpoint again")
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
        name = name.removeprefix("model.")
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
    if odd := [name for name, info in found.items() if info.dtype not in WEIGHTS]:
        what = f"{where}: {odd[0]} holds {found[odd[0]].dtype} ({len(odd)} tensors)"
        raise UserError(what, fix="import the checkpoint from before it was quantised")


def _widest(dtypes: set[torch.dtype]) -> torch.dtype:
    return functools.reduce(torch.promote_types, dtypes)
