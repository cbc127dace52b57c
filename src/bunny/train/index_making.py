"""How an index of rows is made: pictures looked at, samples tokenised, both in parts; then the parts become one folder.

In: samples and a `Writer`. Out: the folder that `bunny.train.index` opens. A part is one file, published by one rename
under a name that holds the fingerprint of all it is made from: a killed process redoes at most the part it was at,
and the folder has the same bytes in the end.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError
from bunny.core.log import meter
from bunny.core.publishing import publish
from bunny.core.store import MANIFEST, fingerprint
from bunny.core.types import ImageRef, IntArray, Rejected, Sample
from bunny.text.template import Writer
from bunny.train.part_files import read_arrays
from bunny.train.picture_parts import PictureFacts, Pictures
from bunny.train.row_parts import Part, write_parts
from bunny.train.rows import report, write_left_out

VERSION = 1
"""Changes with the layout or the meaning of the files."""

PART_ROWS = 8192
IDS, PICTURES, LEFT_OUT, SHOWN = "ids.arrow", "pictures.arrow", "left_out.jsonl", "shown.json"
MOST_SHOWN = 16  # samples
SINGLE = {"tokens": np.int32, "learns": np.int32, "words": np.int32, "cut": np.bool_}
"""Arrays of one value a row."""
SEVERAL = {"ids": "starts", "spans": "span_starts", "pictures": "picture_starts"}
"""Arrays of several values a row, all int32, and the (N + 1,) int64 array that says where each row's begin."""


@dataclass(frozen=True, slots=True)
class Stock:
    """Samples in the order they are to be learnt. known_good: pictures that need not be decoded to see whether they
    open; None: pictures are not looked at. rejected: rows that became no sample."""

    samples: Sequence[Sample]
    known_good: Collection[ImageRef] | None = None
    rejected: Sequence[Rejected] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """An index to be made. digests: of each part's samples. content: fingerprint of all that goes into the index."""

    stock: Stock
    pictures: Pictures
    digests: Sequence[str]
    content: str


def tokenising_mark(writer: Writer, max_length: int) -> str:
    """Fingerprint of how samples become rows."""
    tokenizer = hashlib.sha256(writer.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    settings = [VERSION, writer.image_token_id, writer.image_tokens, max_length, writer.start]
    return fingerprint("rows", [settings, writer.template.model_dump()], {"tokenizer": tokenizer})


def plan_index(stock: Stock, tokenising: str) -> Planned:
    """Reads no picture: of those that are to be looked at, the files' sizes and times count."""
    pictures = Pictures((ref for sample in stock.samples for ref in sample.images), stock.known_good)
    digests = [_digest([tokenising, *map(_told, samples)]) for samples in _pieces(stock.samples)]
    rejected = _digest([asdict(item) for item in stock.rejected])
    content = fingerprint("index", [tokenising, digests, pictures.digests], {"rejected": rejected})
    return Planned(stock, pictures, digests, content)


def make_index(
    planned: Planned, writer: Writer, max_length: int, folder: Path, *, workers: int = 0, supply: str = ""
) -> None:
    """Make the folder. supply: what its manifest is to say of where the samples are from. Raises UserError."""
    work = folder.with_name(f".{folder.name}.parts")
    facts = planned.pictures.look(work)
    parts = _tokenised(planned, facts, writer, max_length, work, workers)
    shutil.rmtree(folder, ignore_errors=True)  # of other samples, or damaged
    with publish(folder) as temporary:
        temporary.mkdir()
        told = _merge(parts, planned.pictures, facts, planned.stock.rejected, max_length, temporary)
        _write_shown(temporary / SHOWN, parts, planned.stock.samples)
        files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        whole = {
            "content": planned.content,
            "supply": supply,
            "image_token_id": writer.image_token_id,
            "image_tokens": writer.image_tokens,
            "max_length": max_length,
            **told,
            "files": files,
        }
        (temporary / MANIFEST).write_text(json.dumps(whole, indent=1), encoding="utf-8")
    shutil.rmtree(work, ignore_errors=True)


def _tokenised(
    planned: Planned, facts: PictureFacts, writer: Writer, max_length: int, work: Path, workers: int
) -> list[Path]:
    """The files of all parts, in order; those that are there are not made again."""
    parts = []
    for at, (samples, digest) in enumerate(zip(_pieces(planned.stock.samples), planned.digests, strict=True)):
        numbers = [[planned.pictures.numbers[ref] for ref in one.images] for one in samples]
        problems = {n: facts.problems[n] for some in numbers for n in some if n in facts.problems}
        mark = _digest([digest, numbers, [[n, asdict(problem)] for n, problem in sorted(problems.items())]])
        parts.append(Part(samples, numbers, problems, work / f"rows-{at:05d}-{mark[:16]}.npz"))
    with meter("tokenise", len(planned.stock.samples)) as bar:

        def missing() -> Iterator[Part]:
            for part in parts:
                if read_arrays(part.output) is None:
                    yield part
                else:
                    bar.advance(len(part.samples))

        write_parts(missing(), writer, max_length, workers if len(parts) > 1 else 0, bar)
    return [part.output for part in parts]


def _merge(
    parts: Sequence[Path],
    pictures: Pictures,
    facts: PictureFacts,
    rejected: Sequence[Rejected],
    max_length: int,
    folder: Path,
) -> dict[str, Any]:
    """Fill the folder from the parts; figures for the manifest. Raises UserError if the rows teach nothing."""
    left_out = [Rejected(**item) for arrays in _read(parts, "left_out") for item in json.loads(bytes(arrays))]
    flags = list(_read(parts, "cut"))
    rows, cut = sum(map(len, flags)), sum(int(some.sum()) for some in flags)
    if not rows or len(left_out) > rows:
        report(rows, cut, left_out, max_length)
    write_left_out(folder / LEFT_OUT, [*rejected, *left_out])
    for name, kind in SINGLE.items():
        _write(folder / f"{name}.npy", kind, (rows,), _read(parts, name))
    used = np.concatenate([np.empty(0, dtype=np.int32), *_read(parts, "pictures")])
    numbers, first = _by_first_use(used, facts.classes(len(pictures.refs)))
    flat = {"ids": _read(parts, "ids"), "spans": _read(parts, "spans"), "pictures": [numbers]}
    for name, starts_name in SEVERAL.items():
        counts = np.concatenate([np.zeros(1, dtype=np.int64), *_read(parts, f"{name}_counts")])
        starts = np.cumsum(counts, dtype=np.int64)
        _write(folder / f"{starts_name}.npy", np.int64, starts.shape, [starts])
        shape = (int(starts[-1]), 2) if name == "spans" else (int(starts[-1]),)
        _write(folder / f"{name}.npy", np.int32, shape, flat[name])
    _write_ids(folder / IDS, parts)
    _write_pictures(folder / PICTURES, [pictures.refs[n] for n in first], facts, first)
    return {"rows": rows, "cut": cut, "left_out": len(left_out), "rejected": len(rejected), "pictures": len(first)}


def _by_first_use(used: IntArray, classes: IntArray) -> tuple[IntArray, IntArray]:
    """(n,) int32 new numbers of the pictures that the rows use, in the order in which they are first used, and (P,) the
    old number of each: of the first of those with equal bytes."""
    kinds, first, inverse = np.unique(classes[used], return_index=True, return_inverse=True)
    order = np.argsort(first)
    ranks = np.empty(len(kinds), dtype=np.int32)
    ranks[order] = np.arange(len(kinds), dtype=np.int32)
    return ranks[inverse], used[first[order]]


def _write(path: Path, kind: Any, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]]) -> None:
    """A `.npy` file written block by block (a mapped one would end the process where the disk is full)."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype=kind).tobytes())


def _write_ids(path: Path, parts: Sequence[Path]) -> None:
    """Arrow file with the column `id`, bytes of UTF-8."""
    import pyarrow as pa

    schema = pa.schema([pa.field("id", pa.large_binary(), nullable=False)])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for names, counts in zip(_read(parts, "names"), _read(parts, "names_counts"), strict=True):
            edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            buffers = [None, pa.py_buffer(edges), pa.py_buffer(names)]
            column = pa.Array.from_buffers(pa.large_binary(), len(counts), buffers)
            writer.write_batch(pa.record_batch([column], schema=schema))


def _write_pictures(path: Path, refs: Sequence[ImageRef], facts: PictureFacts, numbers: IntArray) -> None:
    """Arrow file of `path`, `member`, `column` (bytes of UTF-8) and `sha256` (null where none was looked at)."""
    import pyarrow as pa

    kinds = [pa.binary(), pa.binary(), pa.binary(), pa.binary(32)]
    names = ("path", "member", "column", "sha256")
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(refs), PART_ROWS):
            some = refs[start : start + PART_ROWS]
            texts = [[getattr(ref, name).encode("utf-8", "surrogatepass") for ref in some] for name in names[:3]]
            digests: list[bytes | None] = [None] * len(some)
            if facts.digests is not None:
                digests = [facts.digests[n].tobytes() for n in numbers[start : start + PART_ROWS]]
            columns = [pa.array(cells, kind) for cells, kind in zip([*texts, digests], kinds, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _write_shown(path: Path, parts: Sequence[Path], samples: Sequence[Sample]) -> None:
    """The first samples with pictures, each about other ones, as JSON."""
    shown: dict[tuple[ImageRef, ...], Sample] = {}
    for number, kept in enumerate(_read(parts, "kept")):
        for at in kept:
            sample = samples[number * PART_ROWS + int(at)]
            if sample.images and len(shown) < MOST_SHOWN:
                shown.setdefault(sample.images, sample)
        if len(shown) == MOST_SHOWN:
            break
    path.write_text(json.dumps([_told(sample) for sample in shown.values()]), encoding="utf-8")


def _read(parts: Sequence[Path], name: str) -> Iterator[npt.NDArray[Any]]:
    """One array of every part. Raises UserError for a part that has been spoilt since it was made."""
    for path in parts:
        arrays = read_arrays(path, (name,))
        if arrays is None:
            raise UserError(f"{path}: gone or damaged while it was used", fix="run the stage again")
        yield arrays[name]


def _pieces(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    return [samples[start : start + PART_ROWS] for start in range(0, len(samples), PART_ROWS)]


def _told(sample: Sample) -> list[Any]:
    return [
        sample.id,
        sample.source,
        [[turn.role, turn.text] for turn in sample.turns],
        [[ref.path, ref.member, ref.column] for ref in sample.images],
    ]


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
