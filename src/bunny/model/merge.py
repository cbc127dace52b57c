"""Several models become one: every tensor is the weighted sum of theirs.

In: model folders whose tensors have equal names and shapes, any number of shards each, and a weight per folder. Out: a
whole model folder, published by one rename; its config, tokenizer and processor are those of one of the models.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bunny.core.errors import UserError, nearest
from bunny.core.log import log
from bunny.core.store import publish, write_atomic
from bunny.model.tensor_views import Averaged, Cast, Cut
from bunny.model.tensor_writing import write_tensors
from bunny.model.tensors import TensorTable, open_tensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RECORD = "merge.json"
VOCABULARY = re.compile(r"(^|\.)(embed_tokens|lm_head)\.(weight|bias)$")
WORDS = "words"  # of config.json: how many ids the tokenizer can write; rows beyond them are no words
SAME = ("model_type", "use_s2", "s2_scales", "image_token_index", "image_token_id", "vision_feature_layer")
SAME_WITH_DEFAULT = {"projector_type": "mlp2x_gelu", "mm_projector_type": "mlp2x_gelu"}
PARTS = ("text_config", "vision_config")
WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".index.json")
OF_ONE_RUN = (RECORD, "manifest.json", "metrics.jsonl", "trainer_state.json", "checksums.json")
"""Files that say how a model came to be: they would not be true of the merged one."""


@dataclass(frozen=True, slots=True)
class Model:
    """A folder that takes part: its config and its tensors, unread."""

    folder: Path
    config: Mapping[str, Any]
    table: TensorTable


def average(
    folders: Sequence[Path], weights: Sequence[float], out: Path, dtype: str | None = None, config_from: int = -1
) -> dict[str, Any]:
    """The record of the merged model that now is in `out`, a folder that must not exist or be empty.

    weights: one per folder; sums are taken in float32 and rounded once. dtype: what floating-point tensors are written
    as; None: each as wide as the widest of its inputs. config_from: the folder whose other files are copied. Raises
    UserError, before anything is written, for models that are not alike.
    """
    check_output(out)
    check_weights(folders, weights)
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype {dtype}: no such kind", fix=nearest(dtype, DTYPES))
    models = [_open(Path(folder)) for folder in folders]
    _check_configs(models)
    rows = _common_rows(models)
    models = [Model(model.folder, model.config, _cut(model.table, rows)) for model in models]
    _check_tensors(models)
    tables = [model.table for model in models]
    merged: TensorTable = Averaged(tables, weights)
    merged = Cast(merged, {name: DTYPES[dtype] if dtype else _widest(tables, name) for name in _floats(merged)})
    written = str(most(merged)).removeprefix("torch.")
    source = models[config_from]
    record = {
        "inputs": [str(folder) for folder in folders],
        "weights": list(weights),
        "dtype": written,
        "config_from": str(source.folder),
        "model_type": source.config.get("model_type"),
    }
    with _work_folder(out) as work:
        _copy_files(source.folder, work)
        config = _updated(source.config, written, rows)
        write_atomic(work / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        write_atomic(work / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        with _one_thread():
            write_tensors(merged, work, description="averaging (MB)")
        publish(work, out)
    return record


def check_output(out: Path) -> None:
    """Raise UserError if something is there already; hidden files do not count."""
    if out.exists() and (not out.is_dir() or any(not path.name.startswith(".") for path in out.iterdir())):
        raise UserError(f"{out}: something is there already", fix="choose another folder, or remove it")


def check_weights(folders: Sequence[Path], weights: Sequence[float]) -> None:
    """Raise UserError unless there is one finite weight per folder."""
    if not folders:
        raise UserError("no models to merge", fix="name their folders")
    if len(weights) != len(folders):
        raise UserError(f"{len(folders)} models, {len(weights)} weights", fix="give one weight per model")
    if not all(math.isfinite(weight) for weight in weights):
        raise UserError(f"weights {list(weights)}: not numbers to multiply with")


def _open(folder: Path) -> Model:
    if (folder / "adapter_config.json").exists():
        raise UserError(f"{folder}: a LoRA adapter, not a whole model", fix="merge it into its base model first")
    try:
        config = dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except OSError:
        raise UserError(f"{folder}: no model there (no config.json)", fix="give a model folder") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder / 'config.json'}: damaged ({error})", fix="copy it again") from None
    return Model(folder, config, open_tensors(folder))


def _check_configs(models: Sequence[Model]) -> None:
    """Raise UserError where equal tensors would mean different things."""
    first = models[0]
    for other in models[1:]:
        for (key, ours), theirs in zip(_facts(first.config).items(), _facts(other.config).values(), strict=True):
            if ours != theirs:
                raise UserError(
                    f"{key} is {ours} in {first.folder} and {theirs} in {other.folder}",
                    fix="only models of one architecture can be averaged",
                )


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same. A setting that is off is the same as one that is not there."""
    facts = {key: config.get(key) or None for key in SAME}
    facts |= {key: config.get(key) or default for key, default in SAME_WITH_DEFAULT.items()}
    return facts | {f"{part}.model_type": (config.get(part) or {}).get("model_type") for part in PARTS}


def _common_rows(models: Sequence[Model]) -> int | None:
    """How many vocabulary rows all models have, if they differ in that; else None. Raises UserError if words go."""
    rows = [{name: info.rows for name, info in model.table.info.items() if VOCABULARY.search(name)} for model in models]
    if any(each.keys() != rows[0].keys() for each in rows) or all(each == rows[0] for each in rows):
        return None
    kept = min(min(each.values()) for each in rows)
    longest = [max(each.values()) for each in rows]
    have = ", ".join(f"{model.folder} has {count}" for model, count in zip(models, longest, strict=True))
    for model, count in zip(models, longest, strict=True):
        used = model.config.get(WORDS) or _tokenizer_words(model.folder) or count
        used = max(used, 1 + (model.config.get("image_token_index") or model.config.get("image_token_id") or 0))
        if used > kept:
            raise UserError(
                f"vocabularies of different lengths: {have} rows; as far as the files of {model.folder} say, "
                f"{used} are in use, more than the {kept} in common",
                fix="give models of one tokenizer",
            )
    log.info("vocabulary: the first %d rows are kept (%s); the others are no words", kept, have)
    return kept


def _tokenizer_words(folder: Path) -> int:
    """Ids that the folder's tokenizer can write; 0 if it has none that tells."""
    try:
        tree = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = tree["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        return 1 + int(max(*ids, *(token["id"] for token in tree["added_tokens"]), -1))
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _cut(table: TensorTable, rows: int | None) -> TensorTable:
    names = [name for name in table.info if VOCABULARY.search(name)]
    return table if rows is None else Cut(table, dict.fromkeys(names, rows))


def _check_tensors(models: Sequence[Model]) -> None:
    first = models[0]
    for other in models[1:]:
        ours, theirs = first.table.info, other.table.info
        wrong = [f"{name} is missing" for name in ours if name not in theirs]
        wrong += [f"{name} is only there" for name in theirs if name not in ours]
        wrong += [
            f"{name} is {list(theirs[name].shape)} instead of {list(ours[name].shape)}"
            for name in ours
            if name in theirs and theirs[name].shape != ours[name].shape
        ]
        if wrong:
            more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            raise UserError(
                f"{other.folder} does not fit {first.folder}: {', '.join(wrong[:4])}{more}",
                fix="only models of one architecture and layout can be averaged",
            )


def _floats(table: TensorTable) -> list[str]:
    return [name for name, info in table.info.items() if info.dtype.is_floating_point]


def _widest(tables: Sequence[TensorTable], name: str) -> torch.dtype:
    """The narrowest kind that holds the numbers of all of them."""
    widest = tables[0].info[name].dtype
    for table in tables[1:]:
        widest = torch.promote_types(widest, table.info[name].dtype)
    return widest


def most(table: TensorTable) -> torch.dtype:
    """The kind of most floating-point numbers: what config.json calls the model's dtype."""
    counts: Counter[torch.dtype] = Counter()
    for name in _floats(table):
        counts[table.info[name].dtype] += math.prod(table.info[name].shape)
    return counts.most_common(1)[0][0] if counts else torch.float32


def _updated(config: Mapping[str, Any], dtype: str, rows: int | None) -> dict[str, Any]:
    """The config with the dtype that was written, and the vocabulary's rows where they were cut (None: not)."""
    new = _with_dtype(config, dtype)
    if "dtype" not in new and "torch_dtype" not in new:
        new["dtype"] = dtype
    for part in (new, new.get("text_config") or {}):
        if rows is not None:
            part |= {key: min(rows, part[key]) for key in ("vocab_size", "head_rows") if key in part}
    return new


def _with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    new = {key: _with_dtype(value, dtype) if key in PARTS and value else value for key, value in config.items()}
    return new | {key: dtype for key in ("dtype", "torch_dtype") if key in new}


def _copy_files(source: Path, work: Path) -> None:
    """What a model folder holds beside its weights."""
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.endswith(WEIGHT_ENDINGS) and not path.name.startswith("."):
            if path.name not in OF_ONE_RUN:
                shutil.copyfile(path, work / path.name)
        elif path.is_dir() and path.name == "additional_chat_templates":
            shutil.copytree(path, work / path.name)


@contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to fill; gone after an error, and begun anew after a killed attempt."""
    work = out.with_name(f".{out.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of short pieces wait for memory, not for cores; several threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
