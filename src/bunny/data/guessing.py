"""Which layout a folder or file has, so that nobody has to write a source block for data in a usual one.

In: a path. Out: the `{use: …}` block that reads it. Layouts that others contain are looked for first: DataComp's
metadata is Parquet too, and img2dataset's tars are tars.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.recipe import Block
from bunny.data.json_rows import json_rows
from bunny.data.sources import _columns, _vectors
from bunny.data.sources._rows import PICTURE_SUFFIXES, BadRow, is_file
from bunny.data.sources.clip_retrieval import clip_files
from bunny.data.sources.hf_dataset import snapshot

LOOKED_FOR = """\
Hugging Face (state.json, dataset_dict.json, *.arrow, snapshots/), DataComp (X.parquet + X.npz), clip-retrieval and \
LAION (img_emb_*.npy, text_emb_*.npy, metadata_*.parquet), img2dataset (X.tar + X.parquet), webdataset (*.tar), \
Parquet (*.parquet), LLaVA (*.json, *.jsonl with `conversations`), pictures with texts beside them"""

PICTURE_COLUMNS = ("image", "jpg", "png", "webp", "img", "picture", "image_path", "file_name", "filename", "path")
CAPTION_COLUMNS = ("caption", "text", "txt", "TEXT", "captions", "description", "alt_text", "title")
ID_COLUMNS = ("id", "uid", "key", "__key__", "image_id")
VECTOR_COLUMNS = {
    "image": ("img_emb", "image_emb", "image_embedding", "img_embedding", "image_embeds", "clip_image_embedding"),
    "text": ("text_emb", "txt_emb", "text_embedding", "text_embeds", "caption_embedding", "clip_text_embedding"),
}
MAX_ENTRIES = 200_000  # of a folder, looked at
LAION_COLUMNS = frozenset({"similarity", "NSFW", "SAMPLE_ID", "AESTHETIC_SCORE"})


def guess_source(path: Path) -> Block:
    """The block of the source that reads what lies at `path`. Raises UserError that lists what was looked for."""
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder", fix="check the path")
    found = _first_files(path)
    tests: Sequence[Callable[[Path, Mapping[str, list[Path]]], Block | None]] = (
        _hugging_face,
        _datacomp,
        _clip_retrieval,
        _tars,
        _parquet,
        _llava,
        _pictures,
    )
    for test in tests:
        if block := test(path, found):
            return block
    raise UserError(f"{path}: holds no data of a known layout; looked for: {LOOKED_FOR}", fix="see docs/data.md")


def _of_file(path: Path) -> Block:
    kind = path.suffix.lower()
    if kind == ".tar":
        use = "img2dataset" if path.with_suffix(".parquet").is_file() else "webdataset"
        return {"use": use, "path": str(path)}
    if kind == ".arrow":
        return {"use": "hf_dataset", "path": str(path), **_columns_of(path)}
    if kind == ".parquet":
        return {"use": "table", "path": str(path), **_columns_of(path)}
    if kind in (".json", ".jsonl"):
        if block := _llava_file(path):
            return block
        raise UserError(f"{path}: its rows have no `conversations`", fix="see docs/data.md for what can be read")
    raise UserError(f"{path}: no data of a known kind (.tar, .parquet, .arrow, .json, .jsonl)", fix="see docs/data.md")


def _first_files(root: Path) -> Mapping[str, list[Path]]:
    """Suffix -> files with it, sorted, of the first so many below the folder."""
    found: dict[str, list[Path]] = {}
    left = MAX_ENTRIES
    for folder, inside, names in os.walk(root):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                found.setdefault(Path(name).suffix.lower(), []).append(Path(folder, name))
        left -= len(names)
        if left <= 0:
            break
    return found


def _hugging_face(root: Path, found: Mapping[str, list[Path]]) -> Block | None:
    if (root / "snapshots").is_dir():
        inside = guess_source(snapshot(root))
        return (
            {**inside, "use": "hf_dataset", "path": str(root)} if inside["use"] in ("table", "hf_dataset") else inside
        )
    saved = (root / "state.json").is_file() or (root / "dataset_dict.json").is_file()
    files = found.get(".arrow") or (found.get(".parquet") if saved or _is_from_hub(found) else None)
    return {"use": "hf_dataset", "path": str(root), **_columns_of(files[0])} if files else None


def _is_from_hub(found: Mapping[str, list[Path]]) -> bool:
    """Whether the Parquet files were written by the `datasets` library, which leaves a mark in them."""
    files = found.get(".parquet")
    if not files or found.get(".tar") or found.get(".npy") or found.get(".npz"):
        return False
    try:
        return b"huggingface" in (_columns.schema(files[0]).metadata or {})
    except BadRow:
        return False


def _datacomp(root: Path, found: Mapping[str, list[Path]]) -> Block | None:
    archive = next((path for path in found.get(".npz", ()) if path.with_suffix(".parquet").is_file()), None)
    if archive is None:
        return None
    return {"use": "datacomp", "path": str(archive.parent), **_images(found)}


def _clip_retrieval(root: Path, found: Mapping[str, list[Path]]) -> Block | None:
    numbered = clip_files(root)
    if not any({"image", "text"} & files.keys() for files in numbered.values()):
        return None
    metadata = next((files["metadata"] for files in numbered.values() if "metadata" in files), None)
    try:
        columns = set(_columns.schema(metadata).names) if metadata else set()
    except BadRow:
        columns = set()
    use = "laion" if columns & LAION_COLUMNS else "clip_retrieval"
    return {"use": use, "path": str(root), **_images(found)}


def _images(found: Mapping[str, list[Path]]) -> dict[str, str]:
    """Where the tars with the pictures are, if there are some."""
    tars = found.get(".tar", [])
    return {"images": os.path.commonpath([str(path.parent) for path in tars])} if tars else {}


def _tars(root: Path, found: Mapping[str, list[Path]]) -> Block | None:
    tars = found.get(".tar", [])
    if not tars:
        return None
    paired = any(path.with_suffix(".parquet").is_file() for path in tars)
    return {"use": "img2dataset" if paired else "webdataset", "path": str(root)}


def _parquet(root: Path, found: Mapping[str, list[Path]]) -> Block | None:
    files = found.get(".parquet", [])
    shards_of_files = all(path.stem.isdecimal() and path.with_suffix("").is_dir() for path in files)
    if not files or shards_of_files:  # img2dataset's `files` format: 00000.parquet beside the folder 00000
        return None
    return {"use": "table", "path": str(root), **_columns_of(files[0])}


def _columns_of(path: Path) -> dict[str, Any]:
    """The settings of a table whose columns are not called as a table's are. Raises UserError."""
    try:
        schema = _columns.schema(path)
    except BadRow as bad:
        raise UserError(f"{path}: {bad.detail}", fix="get the file again, or take it away") from None
    kinds = {field.name: field.type for field in schema}
    caption = [name for name in CAPTION_COLUMNS if name in kinds and not _columns.is_bytes(kinds[name])]
    if not caption:
        what = f"{path}: none of its columns looks like a caption: {', '.join(kinds)}"
        raise UserError(what, fix="write a source block with `caption: COLUMN`, see docs/data.md")
    image = _picture_column(path, kinds)
    settings: dict[str, Any] = {} if image == "image" else {"image": image}
    if not {"caption", "text"} & set(caption):
        settings["caption"] = caption[0]
    named = next((name for name in ID_COLUMNS if name in kinds), "id")
    vectors = {
        kind: name
        for kind, names in VECTOR_COLUMNS.items()
        for name in names[::-1]
        if name in kinds and _vectors.is_floats(kinds[name])
    }
    return settings | ({} if named == "id" else {"id": named}) | ({"vectors": vectors} if vectors else {})


def _picture_column(path: Path, kinds: Mapping[str, Any]) -> str | None:
    """The column with the pictures: bytes before paths, usual names before others; None if there seem to be none."""
    inside = [
        name for name in kinds if _columns.is_picture(kinds[name]) and _columns.is_bytes(kinds[name], inside=True)
    ]
    usual = [name for name in PICTURE_COLUMNS if name in inside]
    if inside:
        return (usual or inside)[0]
    return next((name for name in PICTURE_COLUMNS if name in kinds and _names_files(path, name)), None)


def _names_files(path: Path, column: str) -> bool:
    """Whether the column's first values are the names of files, seen from the table."""
    for batch in _columns.batches(path, [column]):
        names = [name for name in batch.light.column(0)[:20].to_pylist() if isinstance(name, str) and name]
        return any(is_file(path.parent / name) for name in names)
    return False


def _llava(root: Path, found: Mapping[str, list[Path]]) -> Block | None:
    files = [path for kind in (".json", ".jsonl") for path in found.get(kind, []) if path.parent == root]
    blocks = [block for path in files if not _has_picture(path) and (block := _llava_file(path))]
    if len(blocks) > 1:
        names = ", ".join(Path(block["path"]).name for block in blocks[:5])
        raise UserError(f"{root}: several LLaVA files: {names}", fix="give the path of the one to read")
    return blocks[0] if blocks else None


def _llava_file(path: Path) -> Block | None:
    """The block of a file whose first rows are conversations, with the folder where their pictures are."""
    rows = _some(json_rows(path))
    if not any("conversations" in row for row in rows):
        return None
    names = [row["image"] for row in rows if isinstance(row.get("image"), str)]
    folders = [path.parent, *(entry for entry in sorted(path.parent.iterdir()) if entry.is_dir())]
    for folder in folders if names else ():
        if any(is_file(folder / name) for name in names):
            return {"use": "llava_json", "path": str(path)} | ({} if folder == path.parent else {"images": str(folder)})
    return {"use": "llava_json", "path": str(path)}


def _some(rows: Iterable[tuple[int, Any]], count: int = 20) -> list[dict[str, Any]]:
    """The first rows that are objects; of a file that breaks off those before."""
    found: list[dict[str, Any]] = []
    try:
        for number, (_, row) in enumerate(rows):
            if number == count:
                break
            if isinstance(row, dict):
                found.append(row)
    except UserError:
        return found
    return found


def _has_picture(path: Path) -> bool:
    return any(path.with_suffix(suffix).is_file() for suffix in PICTURE_SUFFIXES)


def _pictures(root: Path, found: Mapping[str, list[Path]]) -> Block | None:
    return {"use": "folder", "path": str(root)} if PICTURE_SUFFIXES & found.keys() else None
