"""Hugging Face data sets on disk: `save_to_disk` folders, the library's cache, and the hub's Parquet files.

In: a folder with `state.json` and Arrow shards, one with `dataset_dict.json` and a folder a split, a clone or snapshot
(`datasets--org--name`) with Parquet files. Out: one pair a row, as from a table. The library itself is not needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.data.sources._rows import find_files
from bunny.data.sources._shards import warn_of_gaps
from bunny.data.sources.table import Table

_OF_SPLIT = re.compile(r"^(?:.*[-_])?(?P<split>[A-Za-z0-9.]+)-\d{5}-of-\d{5}$")


class HfDataset(Table):
    """`{use: hf_dataset, path: my_set/, split: train}`"""

    split: str | None = None  # one of the set's; default: all

    def named_files(self) -> list[tuple[Path, str]]:
        root = self.located(self.path)
        if root.is_file():
            return [(root, root.stem)]
        root = snapshot(root)
        files = _saved(root)
        if files is None:
            found = find_files(root, (".arrow", ".parquet"))
            files = [path for path in found if not path.name.startswith("cache-")]  # results of the library's map()
            warn_of_gaps(files)
        if self.split is not None:
            files = _of_split(root, files, self.split)
        return [(path, path.relative_to(root).with_suffix("").as_posix()) for path in files]

    def captions(self, cells: Mapping[str, Any]) -> Iterator[object]:
        """As of a table; of a list of captions the first that is not empty."""
        for value in super().captions(cells):
            yield from value if isinstance(value, list) else [value]

    def source(self, path: Path) -> str:
        name = self.located(self.path).resolve().name
        return self.name or name.removeprefix("datasets--").replace("--", "/")


def snapshot(root: Path) -> Path:
    """In the hub's cache the folder of the revision in use; else the folder itself. Raises UserError."""
    revisions = sorted(path for path in (root / "snapshots").iterdir()) if (root / "snapshots").is_dir() else []
    if not revisions:
        return root
    main = root / "refs" / "main"
    used = root / "snapshots" / (main.read_text(encoding="utf-8").strip() if main.is_file() else revisions[0].name)
    if (len(revisions) > 1 and not main.is_file()) or not used.is_dir():
        names = ", ".join(path.name for path in revisions)
        raise UserError(f"{root}: which of the snapshots {names}?", fix="give the path of one of them")
    return used


def _saved(root: Path) -> list[Path] | None:
    """The Arrow files that `save_to_disk` lists, in its order; None for another layout. Raises UserError."""
    splits = _listed(root / "dataset_dict.json", "splits")
    if splits is not None:
        return [file for name in splits for file in _saved(root / name) or [root / name]]
    files = _listed(root / "state.json", "_data_files")
    return None if files is None else [root / name for name in files]


def _listed(path: Path, key: str) -> list[str] | None:
    """The names under a key of the JSON file, as words or as `{filename}`; None where there is no file. Raises
    UserError."""
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        names = [item["filename"] if isinstance(item, dict) else item for item in told[key]]
        chosen = told.get("_indices_files") or told.get("_indices_data_files")
        if not all(isinstance(name, str) and name for name in names):
            raise TypeError(f"`{key}` are no names")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error})", fix="get the file again") from None
    if chosen:
        raise UserError(f"{path}: its rows are chosen by an index file", fix="save it after `flatten_indices()`")
    return names


def _of_split(root: Path, files: list[Path], split: str) -> list[Path]:
    known = {path: _split_of(path.relative_to(root)) for path in files}
    chosen = [path for path in files if split in known[path]]
    if not chosen:
        names = ", ".join(sorted({name for names in known.values() for name in names[:1]})) or "none"
        raise UserError(f"{root}: no split `{split}`; known: {names}", fix="set `split`")
    return chosen


def _split_of(path: Path) -> list[str]:
    """What may be the split of a file: the end of its name before the numbers, or the folders it is in."""
    named = _OF_SPLIT.match(path.stem)
    of_name = [named["split"]] if named and named["split"] != "data" else []
    return [*of_name, *reversed(path.parts[:-1])] or [path.stem]


USE = HfDataset
