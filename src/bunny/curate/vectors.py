"""Embedding a pool: samples in, unit vectors and picture facts out, in parts that survive a kill.

In: samples, an `Embedder`, a picture opener, a folder. Out: an `Embedding`, and `part-00000.npz` … in the folder, each
written whole or not at all; a part that is there and fits is not made again. A sample without a readable picture or
a usable vector is not lost: it is listed in the part as rejected.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.log import log, meter
from bunny.core.protocols import Embedder
from bunny.core.store import fingerprint
from bunny.core.types import FloatArray, ImageRef, IntArray, Pool, Rejected, Sample, Vectors

PART_ROWS = 512
OPEN_ROWS = 32  # pictures decoded at a time
LARGEST_SIDE = 1024  # pixels; larger pictures are shrunk before they wait for the embedder

OpenImage = Callable[[ImageRef], Image.Image]
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Embedding:
    """samples: the N embedded ones, in order of their ids. vectors: row-aligned, float16. sha256: (N,) str digest of
    the decoded pixels. width, height: (N,) int32 pixels. seconds: wall time over all attempts."""

    samples: tuple[Sample, ...]
    vectors: Vectors
    sha256: npt.NDArray[np.str_]
    width: IntArray
    height: IntArray
    rejected: tuple[Rejected, ...]
    seconds: float


def embed_pool(
    samples: Sequence[Sample], embedder: Embedder, folder: Path, *, open_image: OpenImage, threads: int = 0
) -> Embedding:
    """Vectors of all samples. threads: for decoding, 0 = all cores. Raises nothing for single bad samples."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted, rejected = _distinct(samples)
    slices = [wanted[start : start + PART_ROWS] for start in range(0, len(wanted), PART_ROWS)]
    parts: list[Arrays] = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as crew, meter("embed", len(wanted)) as bar:
        for number, rows in enumerate(slices):
            path = folder / f"part-{number:05d}.npz"
            key = fingerprint("vectors", embedder.name, {str(n): _identity(row) for n, row in enumerate(rows)})
            part = _read(path, key)
            if part is None:
                part = _embed_part(rows, embedder, open_image, crew, bar.advance)
                _write(path, {**part, "key": np.array(key)})
            else:
                bar.advance(len(rows))
            parts.append(part)
    return _join(wanted, parts, rejected, embedder)


def _distinct(samples: Sequence[Sample]) -> tuple[list[Sample], list[Rejected]]:
    """Samples sorted by id, one per id, each with a picture; and the others with their reasons."""
    seen: dict[str, Sample] = {}
    rejected = []
    for sample in samples:
        where = str(sample.images[0]) if sample.images else sample.source
        if sample.id in seen:
            rejected.append(Rejected(sample.id, where, "duplicate_id", "the first sample of that id stays"))
        elif not sample.images:
            rejected.append(Rejected(sample.id, where, "no_picture"))
        else:
            seen[sample.id] = sample
    return [seen[id] for id in sorted(seen)], rejected


def _identity(sample: Sample) -> str:
    """What a sample's vectors are made from: its id, its picture's name, its words."""
    ref = sample.images[0]
    return f"{sample.id}\0{Path(ref.path).name}\0{ref.member}\0{sample.text}"


def _embed_part(
    rows: Sequence[Sample],
    embedder: Embedder,
    open_image: OpenImage,
    crew: ThreadPoolExecutor,
    step: Callable[[int], None],
) -> Arrays:
    """The arrays of one part."""
    begin = time.monotonic()
    chunks: list[Arrays] = []
    rejected: list[Rejected] = []
    for start in range(0, len(rows), OPEN_ROWS):
        some = rows[start : start + OPEN_ROWS]
        opened = list(crew.map(lambda sample: _open(sample, open_image), some))
        rejected += [item for item in opened if isinstance(item, Rejected)]
        good = [(sample, item) for sample, item in zip(some, opened, strict=True) if isinstance(item, _Picture)]
        if good:
            chunk, bad = _embed_chunk(good, embedder)
            chunks.append(chunk)
            rejected += bad
        step(len(some))
    part = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]} if chunks else {}
    listed = json.dumps([asdict(item) for item in rejected])
    return {**part, "rejected": np.array(listed), "seconds": np.array(time.monotonic() - begin)}


@dataclass(frozen=True, slots=True)
class _Picture:
    """pixels: (H, W, 3), at most LARGEST_SIDE; width, height, sha256: of the picture as decoded."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    sha256: str


def _open(sample: Sample, open_image: OpenImage) -> _Picture | Rejected:
    ref = sample.images[0]
    try:
        image = open_image(ref).convert("RGB")
    except (UserError, OSError) as error:
        reason = str(getattr(error, "reason", "unreadable_picture"))
        return Rejected(sample.id, str(ref), reason, str(error))
    digest = hashlib.sha256(f"{image.width}x{image.height}\0".encode() + image.tobytes()).hexdigest()
    width, height = image.size
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), reducing_gap=2.0)
    return _Picture(np.asarray(image), width, height, digest)


def _embed_chunk(good: Sequence[tuple[Sample, _Picture]], embedder: Embedder) -> tuple[Arrays, list[Rejected]]:
    """Arrays of the pairs whose vectors are usable, and the others."""
    found = embedder.embed([picture.pixels for _, picture in good], [sample.text for sample, _ in good])
    image, usable = _unit(found.image)
    text, _ = _unit(found.text)
    arrays: Arrays = {"image": image, "text": text}
    if found.visual is not None:
        arrays["visual"], seen = _unit(found.visual)
        usable &= seen
    arrays["id"] = np.array([sample.id for sample, _ in good], dtype=str)
    arrays["sha256"] = np.array([picture.sha256 for _, picture in good], dtype=str)
    for side in ("width", "height"):
        arrays[side] = np.array([getattr(picture, side) for _, picture in good], dtype=np.int32)
    bad = [
        Rejected(sample.id, str(sample.images[0]), "no_vector", "the embedder gave NaN, infinity or zero")
        for (sample, _), fine in zip(good, usable, strict=True)
        if not fine
    ]
    return {name: values[usable] for name, values in arrays.items()}, bad


def _unit(vectors: FloatArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """(B, D) float16 unit rows, NaN where there is no direction; (B,) whether there is one."""
    wide = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    fine = np.isfinite(length) & (length > 1e-12)
    return np.where(fine, wide / np.where(fine, length, 1.0), np.nan).astype(np.float16), fine[:, 0]


def _read(path: Path, key: str) -> Arrays | None:
    """A finished part; None if it is not there, damaged, or made from other samples or settings."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as stored:
            part = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: damaged (%s), made again", path.name, error)
        return None
    return part if str(part.pop("key", "")) == key else None


def _write(path: Path, part: Arrays) -> None:
    """The part, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez(file, **part)  # type: ignore[arg-type]  # numpy types the names of its own keywords only
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _join(wanted: Sequence[Sample], parts: Sequence[Arrays], rejected: list[Rejected], embedder: Embedder) -> Embedding:
    full = [part for part in parts if "id" in part]
    for part in parts:
        rejected += [Rejected(**item) for item in json.loads(str(part["rejected"]))]

    def join(name: str, empty: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([part[name] for part in full]) if full else empty

    ids = join("id", np.empty(0, dtype=str))
    nothing = np.empty((0, embedder.dim), np.float16)
    visual = join("visual", nothing) if full and "visual" in full[0] else None
    by_id = {sample.id: sample for sample in wanted}
    return Embedding(
        samples=tuple(by_id[str(id)] for id in ids),
        vectors=Vectors(ids, join("image", nothing), join("text", nothing), embedder.name, visual),
        sha256=join("sha256", np.empty(0, dtype=str)),
        width=join("width", np.empty(0, np.int32)),
        height=join("height", np.empty(0, np.int32)),
        rejected=tuple(rejected),
        seconds=float(sum(float(part["seconds"]) for part in parts)),
    )


def build_pool(embedding: Embedding) -> Pool:
    """The pool of all embedded samples, rows in order of their ids.

    Columns: id, source, caption (N,) str; sha256 (N,) str; width, height (N,) int32; image, text (N, D) and visual
    (N, V) float32 unit rows (`visual` is `image` where the embedder has no vectors of its own for it); pair_cosine
    (N,) float32, NaN where there is no text.
    """
    vectors = embedding.vectors
    image = _wide_unit(vectors.image)
    text = np.full_like(image, np.nan) if vectors.text is None else _wide_unit(vectors.text)
    return Pool(
        {
            "id": vectors.ids,
            "source": np.array([sample.source for sample in embedding.samples], dtype=object),
            "caption": np.array([sample.text for sample in embedding.samples], dtype=object),
            "sha256": embedding.sha256,
            "width": embedding.width,
            "height": embedding.height,
            "image": image,
            "text": text,
            "visual": image if vectors.visual is None else _wide_unit(vectors.visual),
            "pair_cosine": np.einsum("nd,nd->n", image, text),
        }
    )


def _wide_unit(vectors: FloatArray) -> FloatArray:
    """float32 rows of length one again after their stay in float16; NaN rows stay NaN."""
    wide = np.asarray(vectors, dtype=np.float32)
    unit: FloatArray = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
