"""One part of a pool: the samples of an index in, their vectors and picture facts out, whole or not at all.

`embed_part` decodes pictures and asks an `Embedder`; `refer_part` looks at vectors that exist and writes down where
they are. Both reject what has no usable vector, and both leave the same files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.protocols import Embedder
from bunny.core.publishing import publish
from bunny.core.sample_table import copy_rows, iterate_samples
from bunny.core.types import BoolArray, FloatArray, ImageRef, IntArray, Rejected, Sample
from bunny.curate.columns import BLOCK, NpyFile, Rows
from bunny.curate.index import read_index
from bunny.curate.memory import anonymous, peak
from bunny.curate.parts import (
    FACTS,
    PART,
    REJECTED,
    SAMPLES,
    STORED,
    VECTORS,
    open_facts,
    read_rejected,
    stored_vectors,
    write_facts,
    write_rejected,
)
from bunny.curate.phash import phash

OPEN_ROWS = 64  # pictures decoded together, while the embedder looks at those before them
LARGEST_SIDE = 1024  # pixels; larger pictures are shrunk before they wait for the embedder
TINY = 1e-12  # shorter vectors have no direction

OpenImage = Callable[[ImageRef], Image.Image]
Arrays = dict[str, npt.NDArray[Any]]


def embed_part(
    index: Path,
    number: int,
    embedder: Embedder | None,
    open_image: OpenImage,
    output: Path,
    *,
    key: str = "",
    threads: int = 0,
) -> None:
    """Publish the part of an index's samples. Raises nothing for single bad samples.

    embedder: None for a part without samples. key: what the part is made from. threads: for decoding, 0 = all cores.
    """
    begin, source = time.monotonic(), index / f"{number:05d}"
    samples = list(iterate_samples(source / SAMPLES))
    chunks: list[Arrays] = []
    rejected = read_rejected(source / REJECTED)
    with peak() as held, ThreadPoolExecutor(threads or os.cpu_count() or 1) as crew:
        for opened in _opened(samples, open_image, crew):
            good = [(row, item) for row, item in opened if isinstance(item, _Picture)]
            rejected += [item for _, item in opened if isinstance(item, Rejected)]
            if good:
                assert embedder
                chunk, bad = _embed(samples, good, embedder)
                chunks.append(chunk)
                rejected += bad
    found = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]} if chunks else {}
    fine = np.zeros(len(samples), dtype=bool)
    fine[found.get("row", [])] = True
    with publish(output) as work:
        work.mkdir()
        for name in VECTORS:
            if name in found and np.isfinite(found[name]).any():
                np.save(work / f"{name}.npy", found[name])
        about = {"key": key, "seconds": time.monotonic() - begin, "memory": held.bytes}
        _write_rest(work, source, fine, found, rejected, about)


def refer_part(index: str, number: int, key: str, output: Path) -> None:
    """Publish the part of samples whose vectors exist; the files that hold them stay where they are."""
    begin, source = time.monotonic(), Path(index) / f"{number:05d}"
    stored = {
        name: _Stored.open(path, source / f"{name}.rows.npy") for name, path in read_index(Path(index)).stored.items()
    }
    rejected, fine = read_rejected(source / REJECTED), np.ones(len(stored["image"].rows), dtype=bool)
    ids = open_facts(source / FACTS).column("id")
    for name in ("image", "visual"):
        for row, detail in (stored[name].unusable() if name in stored else {}).items():
            if fine[row]:
                place = f"{stored[name].path}#{stored[name].rows[row]}"
                rejected.append(Rejected(ids[row].as_py(), place, "no_vector", detail))
                fine[row] = False
    if "text" in stored:
        stored["text"].rows[list(stored["text"].unusable())] = -1
    found: Arrays = {}
    if "text" in stored:
        blocks = zip(stored["image"].blocks(fine), stored["text"].blocks(fine), strict=True)
        found["pair_cosine"] = np.concatenate([np.empty(0, np.float32), *(pair_cosine(*both) for both in blocks)])
    with publish(output) as work:
        work.mkdir()
        told = {name: stored_vectors(one.path, one.rows[fine], work, name) for name, one in stored.items()}
        (work / STORED).write_text(json.dumps(told, indent=1), encoding="utf-8")
        about = {"key": key, "seconds": time.monotonic() - begin, "memory": anonymous()}
        _write_rest(work, source, fine, found, rejected, about)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Vectors that exist. rows: (n,) int64 row of the file for each sample, -1 where there is none."""

    path: str
    vectors: Any
    rows: IntArray

    @staticmethod
    def open(path: str, rows: Path) -> _Stored:
        vectors, asked = NpyFile(path), np.load(rows)
        return _Stored(path, vectors, np.where(asked < len(vectors), asked, -1))

    def read(self, rows: IntArray) -> FloatArray:
        """(n, D) float32 unit rows; NaN where there is none."""
        if not len(self.vectors):
            return np.full((len(rows), self.vectors.shape[1]), np.nan, np.float32)
        found = Rows([self.vectors]).read(np.maximum(rows, 0))
        found[rows < 0] = np.nan
        return found

    def blocks(self, wanted: BoolArray) -> Iterator[FloatArray]:
        """The wanted samples' rows, some at a time."""
        rows = self.rows[wanted]
        for start in range(0, len(rows), BLOCK):
            yield self.read(rows[start : start + BLOCK])

    def unusable(self) -> dict[int, str]:
        """Sample -> what is wrong with its vector, for those that have no direction."""
        found: dict[int, str] = {}
        for start in range(0, len(self.rows), BLOCK):
            block = self.read(self.rows[start : start + BLOCK])
            for place in (start + np.flatnonzero(~np.isfinite(block).all(axis=1))).tolist():
                if self.rows[place] < 0:
                    found[place] = "the source has none"
                else:
                    raw = self.vectors[self.rows[place : place + 1]]
                    found[place] = "NaN or infinite numbers" if raw.any() else "the vector is zero"
        return found


def pair_cosine(image: FloatArray, text: FloatArray) -> FloatArray:
    """(n,) float32 likeness of pictures and texts, NaN where there is no text. image, text: (n, D) unit rows."""
    found: FloatArray = (image * text).sum(axis=1, dtype=np.float64).astype(np.float32)
    return found


def _write_rest(
    work: Path, source: Path, fine: BoolArray, found: Arrays, rejected: Sequence[Rejected], about: dict[str, Any]
) -> None:
    """The files beside the vectors. source: the part's index; fine: which of its rows stay; found: their new facts."""
    import pyarrow as pa

    if fine.all():
        shutil.copyfile(source / SAMPLES, work / SAMPLES)
    else:
        copy_rows([(source / SAMPLES, fine)], None, work / SAMPLES)
    facts = open_facts(source / FACTS).filter(pa.array(fine))
    for name in facts.column_names:
        if name in found:
            kind = facts.schema.field(name).type
            facts = facts.set_column(facts.column_names.index(name), name, pa.array(found[name], kind))
    write_facts(work / FACTS, facts)
    write_rejected(work / REJECTED, rejected)
    (work / PART).write_text(json.dumps({"rows": int(fine.sum()), **about}), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Picture:
    """pixels: (H, W, 3), at most LARGEST_SIDE; width, height, sha256: of the picture as decoded."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    sha256: str
    phash: int


def _opened(
    samples: Sequence[Sample], open_image: OpenImage, crew: ThreadPoolExecutor
) -> Iterator[list[tuple[int, _Picture | Rejected]]]:
    """(row, picture) of some rows at a time; the next ones are decoded meanwhile."""

    def begin(start: int) -> list[Future[_Picture | Rejected]]:
        return [crew.submit(_open, sample, open_image) for sample in samples[start : start + OPEN_ROWS]]

    waiting = begin(0)
    for start in range(0, len(samples), OPEN_ROWS):
        following = begin(start + OPEN_ROWS)
        yield [(start + place, picture.result()) for place, picture in enumerate(waiting)]
        waiting = following


def _open(sample: Sample, open_image: OpenImage) -> _Picture | Rejected:
    if not sample.images:
        return Rejected(sample.id, sample.source, "no_picture")
    ref = sample.images[0]
    try:
        image = open_image(ref).convert("RGB")
    except (UserError, OSError) as error:
        reason = str(getattr(error, "reason", "unreadable_picture"))
        return Rejected(sample.id, str(ref), reason, str(error))
    digest = hashlib.sha256(f"{image.width}x{image.height}\0".encode() + image.tobytes()).hexdigest()
    width, height = image.size
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), reducing_gap=2.0)
    pixels = np.asarray(image)
    return _Picture(pixels, width, height, digest, phash(pixels))


def _embed(
    samples: Sequence[Sample], good: Sequence[tuple[int, _Picture]], embedder: Embedder
) -> tuple[Arrays, list[Rejected]]:
    """Arrays of the pairs whose vectors are usable, and the others."""
    texts = [samples[row].text for row, _ in good]
    told = embedder.embed([picture.pixels for _, picture in good], texts)
    image, usable = _unit(told.image)
    text, _ = _unit(told.text)
    arrays: Arrays = {"row": np.array([row for row, _ in good]), "image": image, "text": text}
    if told.visual is not None:
        arrays["visual"], seen = _unit(told.visual)
        usable &= seen
    arrays["sha256"] = np.array([picture.sha256 for _, picture in good], dtype=object)
    arrays["phash"] = np.array([picture.phash for _, picture in good], dtype=np.uint64)
    for side in ("width", "height"):
        arrays[side] = np.array([getattr(picture, side) for _, picture in good], dtype=np.int32)
    arrays["pair_cosine"] = pair_cosine(Rows([image]).read(), Rows([text]).read())
    bad = [
        Rejected(samples[row].id, str(samples[row].images[0]), "no_vector", "the embedder gave NaN, infinity or zero")
        for (row, _), fine in zip(good, usable, strict=True)
        if not fine
    ]
    return {name: values[usable] for name, values in arrays.items()}, bad


def _unit(vectors: FloatArray) -> tuple[FloatArray, BoolArray]:
    """(B, D) float16 unit rows, NaN where there is no direction; (B,) whether there is one."""
    wide = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    fine = np.isfinite(length) & (length > TINY)
    return np.where(fine, wide / np.where(fine, length, 1.0), np.nan).astype(np.float16), fine[:, 0]
