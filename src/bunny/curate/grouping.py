"""Groups of a pool's vectors: rows in files in, every row's group and the rows' codes in order of the groups out.

Two kinds of task, both functions of a folder: `train_centres` looks at a sample, `assign_chunk` puts the rows of one
chunk into their groups and writes their codes, sorted, and which of them are guests in other groups. What
`bunny.curate.linking` compares later it reads from there: one run of rows a chunk, and its guests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError
from bunny.core.publishing import publish
from bunny.core.store import fingerprint, fingerprint_files
from bunny.core.types import FloatArray, IntArray, Place, Task
from bunny.curate import kernels, kmeans
from bunny.curate.codes import Encoded, Quantiser
from bunny.curate.columns import NpyFile, Rows
from bunny.curate.work import in_threads, read_arrays, write_array, write_arrays, write_text

FEW_ROWS, MANY_ROWS = 64, 256  # rows a centre that training looks at: many as long as their codes are few
SAMPLE_BYTES = 1 << 29
LEAST_SAMPLE = 65_536  # rows; smaller pools are looked at as a whole
CHUNK_ROWS = 65_536  # of one task; more where there would be more than MOST_CHUNKS
MOST_CHUNKS = 2_000
BLOCK_ROWS = 2_048
STORED = ("order", "position", "place")
PROBES = 3  # groups in which a row may be compared: that of its nearest centre, and as guest those of the next two
FACTS = np.dtype([("group", "<i4"), ("position", "<i8"), ("error", "<f4"), ("length", "<f4"), ("along", "<f4")])
"""What stands beside every code: its group, its row of the pool, and what `kernels.encode` says of it."""
GUEST = np.dtype([("group", "<i4"), ("place", "<i4")])
"""A guest of a group: where its code stands among its chunk's."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Of N rows: `groups` (N, PROBES) int32, the group of each, and those of the next centres where it is a guest, that
    is compared too (-1: it is not); `cosine` to its group's centre and `border`, distance to the plane half-way to the
    next centre: (N,) float32."""

    groups: IntArray
    cosine: FloatArray
    border: FloatArray

    @staticmethod
    def empty(rows: int) -> Groups:
        return Groups(np.empty((rows, PROBES), np.int32), np.empty(rows, np.float32), np.empty(rows, np.float32))


def group_rows(
    vectors: Rows, groups: int, rng: np.random.Generator, *, iterations: int, start: str, reach: float, place: Place
) -> Groups:
    """Spherical k-means over all rows. reach: rows no further than this from the plane half-way to their second or
    third nearest centre are guests there: compared there too. 0: none."""
    seed = int(rng.integers(1 << 62))
    settings = {"groups": groups, "iterations": iterations, "start": start, "reach": reach, "seed": seed}
    folder = place_rows(vectors, place, "groups", settings | {"probes": PROBES})
    train = Task("bunny.curate.grouping:train_centres", {"folder": str(folder), **settings}, folder / "centres.npz")
    place.engine.run("centres", [train])
    found = _read_groups(_run_chunks(folder, place))
    note = place.folder / _name_of(vectors, found.groups)
    if not note.exists():
        write_text(note, folder.name)
    return found


def code_rows(vectors: Rows, groups: IntArray, place: Place) -> Path:
    """The folder of the rows' codes in order of known groups: `group_rows`'s own, if it made them of these rows.

    groups: (N, P) int32, the group of each row and those where it is a guest (-1: nowhere)."""
    note = place.folder / _name_of(vectors, groups)
    if note.exists():
        return place.folder / note.read_text(encoding="utf-8")
    folder = place_rows(vectors, place, "codes", {"groups": note.name})
    if not (folder / "centres.npz").exists():
        quantiser = Quantiser.fit(_evenly(vectors, LEAST_SAMPLE))
        write_array(folder / "groups.npy", groups)
        write_arrays(folder / "centres.npz", {"mean": quantiser.mean, "scale": quantiser.scale, "cut": 0.0})
    _run_chunks(folder, place)
    return folder


def _name_of(vectors: Rows, groups: IntArray) -> str:
    """A file name that stands for these rows in these groups."""
    digest = hashlib.sha256(_identity(vectors).encode())
    digest.update(np.ascontiguousarray(groups, np.int32).tobytes())
    return f"rows-{digest.hexdigest()[:24]}.txt"


def _identity(vectors: Rows) -> str:
    """Fingerprint of the vectors: files by name, size and time, arrays by content, and which rows of them."""
    files: set[Path] = set()
    digest = hashlib.sha256(b"" if vectors.whole() else np.ascontiguousarray(vectors.index).tobytes())
    for piece in vectors.pieces:
        if isinstance(piece, NpyFile):
            digest.update(json.dumps(piece.block()).encode())
            files.update(piece.files())
        else:
            digest.update(np.ascontiguousarray(piece[:]).tobytes())
    return fingerprint("rows", digest.hexdigest(), {"files": fingerprint_files(sorted(files))})


def _evenly(vectors: Rows, count: int) -> FloatArray:
    """At most so many rows, spread over all."""
    size = len(vectors)
    return vectors.read(np.unique(np.linspace(0, size - 1, min(size, count)).astype(np.int64)) if size else slice(0))


def place_rows(vectors: Rows, place: Place, kind: str, settings: Mapping[str, Any]) -> Path:
    """A folder that says which rows of which files are meant, in the order in which they are stored there."""
    folder = place.folder / f"{kind}-{fingerprint(kind, dict(settings), {'rows': _identity(vectors)})}"
    if (folder / "rows.json").exists():
        return folder
    pieces = []
    for number, piece in enumerate(vectors.pieces):
        if not isinstance(piece, NpyFile):
            write_array(folder / f"vectors-{number}.npy", np.asarray(piece[:]))
            piece = NpyFile(folder / f"vectors-{number}.npy")
        pieces.append(piece.block())
    index = np.arange(len(vectors), dtype=np.int64) if vectors.index is None else vectors.index
    order = np.argsort(index, kind="stable")
    write_array(folder / "order.npy", index[order])  # places in the files, ascending
    write_array(folder / "position.npy", order.astype(np.int64))  # row of the pool at each
    place_of_row = np.empty(len(order), np.int64)
    place_of_row[order] = np.arange(len(order))
    write_array(folder / "place.npy", place_of_row)
    chunk = max(CHUNK_ROWS, -(-len(index) // MOST_CHUNKS))
    write_text(folder / "rows.json", json.dumps({"pieces": pieces, "chunk": chunk}))
    return folder


@dataclass(frozen=True, slots=True)
class Placed:
    """What `place_rows` wrote. vectors: in stored order; position: (N,) int64, the row of the pool at each place;
    place: (N,) int64, the place of each row of the pool."""

    folder: Path
    vectors: Rows
    position: IntArray
    place: IntArray
    chunk: int

    @staticmethod
    def open(folder: Path | str) -> Placed:
        folder = Path(folder)
        content = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        order, position, place = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in STORED)
        pieces = [NpyFile(**block) for block in content["pieces"]]
        return Placed(folder, Rows(pieces, order), position, place, int(content["chunk"]))

    def read(self, rows: IntArray) -> FloatArray:
        """(n, D) unit vectors of rows of the pool."""
        return self.vectors.read(self.place[rows])

    def glance(self, rows: IntArray) -> FloatArray:
        """As `read`, good until this thread's next glance."""
        return self.vectors.glance(self.place[rows])

    def chunks(self) -> Iterator[tuple[int, int, Path]]:
        """(first row, last + 1, folder) of every chunk."""
        for number, start in enumerate(range(0, len(self.position), self.chunk)):
            yield start, min(start + self.chunk, len(self.position)), self.folder / f"chunk-{number:05d}"


def train_centres(folder: str, groups: int, iterations: int, start: str, reach: float, seed: int, output: Path) -> None:
    """Task: the centres, from a sample that depends on the rows' order in the pool only, not on where they stand."""
    placed, rng = Placed.open(folder), np.random.default_rng(seed)
    size = len(placed.position)
    columns = placed.vectors.shape[1]
    wanted = max(FEW_ROWS * groups, min(MANY_ROWS * groups, SAMPLE_BYTES // columns), LEAST_SAMPLE)
    drawn = np.sort(rng.choice(size, min(size, wanted), replace=False))  # rows of the pool
    sample, mixed = placed.vectors[placed.place[drawn]], rng.permutation(len(drawn))
    quantiser = Quantiser.fit(sample.read(slice(0, 20_000)))
    encoded = _encoded(sample, quantiser, mixed)
    refuse_unusable(encoded.length)
    centres = kmeans.train(encoded, quantiser, groups, rng, iterations, start)  # type: ignore[arg-type]
    if len(drawn) <= LEAST_SAMPLE:  # with more rows what codes leave out does not show in their means
        centres = _centred(centres, sample, centres.assign(encoded.codes).nearest[mixed, 0], quantiser)
    cut = reach if reach > 0 else -1.0  # rows between two centres are no guests either
    found = {"mean": quantiser.mean, "scale": quantiser.scale, "cut": cut, "unit": centres.unit}
    if centres.cells is not None:
        cells = centres.cells
        found |= {"cell_codes": cells.codes, "cell_bias": cells.bias, "cell_start": cells.start}
        found["cell_probed"] = cells.probed
    write_arrays(output, found)


def _centred(centres: kmeans.Centres, sample: Rows, label: IntArray, quantiser: Quantiser) -> kmeans.Centres:
    """The centres at the means of the vectors themselves, no longer of their codes."""
    sums = np.zeros(centres.unit.shape)
    for first, block in sample.blocks():
        kernels.add_rows(block, label[first : first + len(block)], sums)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    unit = np.where(length > 1e-9, sums / np.maximum(length, 1e-9), centres.unit).astype(np.float32)
    moved = kmeans.Centres.of(unit, quantiser)
    return kmeans.Centres(moved.unit, moved.codes, moved.bias, centres.cells)


def _encoded(rows: Rows, quantiser: Quantiser, to: IntArray) -> Encoded:
    """Codes of many rows, block by block; row n's stand at place to[n]."""
    size, columns = rows.shape
    all_rows = Encoded.empty(size, columns)

    def one(part: slice) -> None:
        found = quantiser.encode(rows.glance(part))
        for name in ("codes", "error", "length", "along"):
            getattr(all_rows, name)[to[part]] = getattr(found, name)

    in_threads(one, _runs(size, BLOCK_ROWS))
    return all_rows


def _borders(centres: kmeans.Centres, found: kmeans.Assigned, number: int, quantiser: Quantiser) -> FloatArray:
    """(N,) float32 distances to the planes half-way to the centres of this number (1: second nearest); infinite where
    there are not so many."""
    distance, other = np.empty(len(found.nearest), np.float32), found.nearest[:, number]
    kernels.apart(centres.unit, found.nearest[:, 0], other, distance)
    margin = (found.score[:, 0].astype(np.int64) - found.score[:, number]) / quantiser.unit
    return np.where(other >= 0, margin / np.maximum(distance, 1e-12), np.inf).astype(np.float32)


def _run_chunks(folder: Path, place: Place) -> Placed:
    placed = Placed.open(folder)
    tasks = [
        Task("bunny.curate.grouping:assign_chunk", {"folder": str(folder), "first": first, "last": last}, path)
        for first, last, path in placed.chunks()
    ]
    place.engine.run("groups", tasks)
    return placed


def _read_groups(placed: Placed) -> Groups:
    found = Groups.empty(len(placed.position))
    for first, last, path in placed.chunks():
        for name, values in read_arrays(path / "columns.npz").items():
            getattr(found, name)[placed.position[first:last]] = values
    return found


def assign_chunk(folder: str, first: int, last: int, output: Path) -> None:
    """Task: codes of one chunk's rows in order of their groups (`codes.npy`, `codes-facts.npy`), the guests of every
    group (`guests.npy`) and, where the groups were not known, the columns of `Groups`, in stored order
    (`columns.npz`)."""
    placed, model = Placed.open(folder), read_arrays(Path(folder) / "centres.npz")
    quantiser, position = Quantiser(model["mean"], float(model["scale"])), np.asarray(placed.position[first:last])
    chunk = _Chunk(placed.vectors[first:last], quantiser, _centres(model, quantiser), float(model["cut"]))
    in_threads(chunk.encode, _runs(len(position), BLOCK_ROWS))
    refuse_unusable(chunk.encoded.length)
    if chunk.centres is not None and chunk.centres.cells is not None:
        in_threads(chunk.assign, _runs(len(position), kmeans.SEGMENT))
        in_threads(chunk.measure, _runs(len(position), BLOCK_ROWS))
    with publish(output) as target:
        target.mkdir()
        if chunk.centres is None:
            groups = np.load(Path(folder) / "groups.npy", mmap_mode="r")[position]
        else:
            groups = chunk.found.groups
            found = chunk.found
            np.savez(target / "columns.npz", groups=found.groups, cosine=found.cosine, border=found.border)
        _write_codes(target, groups, chunk.encoded, position)


class _Chunk:
    """Rows of one chunk on their way into groups. found: their groups; encoded: their codes; cut: distance to a border
    from which a row is no guest beyond it."""

    def __init__(self, rows: Rows, quantiser: Quantiser, centres: kmeans.Centres | None, cut: float) -> None:
        self.rows, self.quantiser, self.centres, self.cut = rows, quantiser, centres, cut
        size, columns = rows.shape
        self.found = Groups.empty(size)
        self.encoded = Encoded.empty(size, columns)

    def encode(self, part: slice) -> None:
        """Codes of a run of rows; and their groups, unless there are cells: these want many rows at a time."""
        vectors = self.rows.glance(part)
        self.quantiser.encode(vectors, self.encoded.of(part))
        if self.centres is not None and self.centres.cells is None:
            self.assign(part)
            self.measure(part, vectors)

    def assign(self, part: slice) -> None:
        assert self.centres is not None
        best = self.centres.assign(self.encoded.codes[part], PROBES)
        self.found.groups[part, 0] = best.nearest[:, 0]
        for number in range(1, PROBES):
            border = _borders(self.centres, best, number, self.quantiser)
            self.found.groups[part, number] = np.where(border <= self.cut, best.nearest[:, number], -1)
            if number == 1:
                self.found.border[part] = border

    def measure(self, part: slice, vectors: FloatArray | None = None) -> None:
        """Cosines to the centres."""
        assert self.centres is not None
        vectors = self.rows.glance(part) if vectors is None else vectors
        kernels.row_dots(vectors, self.centres.unit, self.found.groups[part, 0], self.found.cosine[part])


def _runs(size: int, rows: int) -> list[slice]:
    return [slice(start, min(size, start + rows)) for start in range(0, size, rows)]


def _centres(model: Mapping[str, npt.NDArray[Any]], quantiser: Quantiser) -> kmeans.Centres | None:
    if "unit" not in model:
        return None
    centres = kmeans.Centres.of(model["unit"], quantiser)
    if "cell_codes" not in model:
        return centres
    cells = kmeans.Cells(model["cell_codes"], model["cell_bias"], model["cell_start"], int(model["cell_probed"]))
    return kmeans.Centres(centres.unit, centres.codes, centres.bias, cells)


def refuse_unusable(length: FloatArray) -> None:
    """Raise UserError if the length of an encoded row is no number."""
    if unusable := int(np.isnan(length).sum()):
        raise UserError(
            f"{unusable} of {len(length)} rows have no usable vector (NaN, infinity or zero)",
            fix="drop them before: a pool made by `bunny curate` lists them as rejected; for texts use {use: rules}",
        )


def _write_codes(folder: Path, groups: IntArray, encoded: Encoded, position: IntArray) -> None:
    order = np.argsort(groups[:, 0], kind="stable")
    np.save(folder / "codes.npy", encoded.codes[order])
    facts = np.empty(len(order), FACTS)
    facts["group"], facts["position"] = groups[order, 0], position[order]
    for fact in ("error", "length", "along"):
        facts[fact] = getattr(encoded, fact)[order]
    np.save(folder / "codes-facts.npy", facts)
    place, number = np.nonzero(groups[order, 1:] >= 0)
    guests = np.empty(len(place), GUEST)
    guests["group"], guests["place"] = groups[order[place], number + 1], place
    np.save(folder / "guests.npy", guests[np.argsort(guests["group"], kind="stable")])
