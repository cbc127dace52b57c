"""The rows of a stage on disk: tokenised once, memory-mapped by every process, any row in microseconds.

In: samples, a `Writer`. Out: `Index`, a sequence of `TokenRow`s. Files of its folder: flat arrays (`ids`, `starts`,
`spans`, …), the ids of samples and the places of pictures as Arrow, `left_out.jsonl`, and `manifest.json` with a
fingerprint of all that the rows are made from: the same rows are not made again. A picture's tokens are stored as one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.store import MANIFEST, write_atomic
from bunny.core.types import IGNORE, BoolArray, ImageRef, Rejected, Sample, TokenRow, Turn
from bunny.text.template import Writer
from bunny.train.index_making import IDS, LEFT_OUT, PICTURES, SHOWN, make_index, plan_index, tokenising_mark
from bunny.train.index_making import Stock as Stock
from bunny.train.rows import read_left_out, report


@dataclass(frozen=True, slots=True)
class Supply:
    """A stock that is read only if there is no index of it. key: fingerprint of all that `read` depends on."""

    key: str
    read: Callable[[], Stock]


def index_rows(
    samples: Sequence[Sample] | Supply,
    writer: Writer,
    *,
    max_length: int,
    folder: Path,
    known_good: Collection[ImageRef] | None = None,
    rejected: Sequence[Rejected] = (),
    workers: int = 0,
) -> Index:
    """The rows of the samples, made in `folder` unless they are there. To be called by one process only.

    known_good, rejected: see `Stock`; a `Supply` brings its own. workers: processes that tokenise; 0 = this one.
    A killed attempt is taken up where it was. Raises UserError if nothing can be learnt or written.
    """
    tokenising = tokenising_mark(writer, max_length)
    mark = f"{tokenising}:{samples.key}" if isinstance(samples, Supply) else ""
    index = _whole(folder)
    if index is None or not mark or index.manifest["supply"] != mark:
        stock = samples.read() if isinstance(samples, Supply) else Stock(samples, known_good, rejected)
        planned = plan_index(stock, tokenising)
        if index is None or index.manifest["content"] != planned.content:
            index = None  # unmaps its files
            make_index(planned, writer, max_length, folder, workers=workers, supply=mark)
        elif mark:
            write_atomic(folder / MANIFEST, json.dumps({**index.manifest, "supply": mark}, indent=1))
        index = Index.open(folder)
    log.info("%d rows, %d pictures (%s)", len(index), index.pictures, folder)
    report(len(index), int(index.cut.sum()), index.left_out[index.manifest["rejected"] :], max_length)
    return index


def _whole(folder: Path) -> Index | None:
    """The index that is there, if it is whole."""
    try:
        return Index.open(folder)
    except UserError as error:
        if folder.exists():
            log.warning("%s: made again", error.what)
        return None


class Index(Sequence[TokenRow]):
    """Rows by number; a slice is a list of rows. Nothing is held in memory but what was touched last.

    tokens: (N,) int32 length of each row. learns: (N,) int32 labels that count. words: (N,) int32 as
    `train.grouping.signed_words` counts. cut: (N,) bool. manifest: what `manifest.json` says.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.tokens, self.learns, self.words = (self._array(name) for name in ("tokens", "learns", "words"))
        self.cut: BoolArray = self._array("cut")
        self._ids, self._starts = self._array("ids"), self._array("starts")
        self._spans, self._span_starts = self._array("spans"), self._array("span_starts")
        self._pictures, self._picture_starts = self._array("pictures"), self._array("picture_starts")
        self._names = _table(folder / IDS).column("id")
        self._places = _table(folder / PICTURES)
        self._image_id, self._run = int(manifest["image_token_id"]), int(manifest["image_tokens"])

    @staticmethod
    def open(folder: Path) -> Index:
        """The index in a folder; reads no row. Raises UserError if there is none or it is damaged."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            for name, size in manifest["files"].items():
                if (folder / name).stat().st_size != size:
                    raise ValueError(f"{name} is damaged")
            return Index(folder, manifest)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{folder}: no whole index of rows ({error})", fix="run the stage again") from None

    def __len__(self) -> int:
        return len(self.tokens)

    @overload
    def __getitem__(self, row: int) -> TokenRow: ...

    @overload
    def __getitem__(self, row: slice) -> list[TokenRow]: ...

    def __getitem__(self, row: int | slice) -> TokenRow | list[TokenRow]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        number = range(len(self))[row]  # negative ones count from the end; raises IndexError
        ids = self._ids[self._starts[number] : self._starts[number + 1]].astype(np.int64)
        learnt = np.zeros(len(ids), dtype=bool)
        for start, end in self._spans[self._span_starts[number] : self._span_starts[number + 1]]:
            learnt[start:end] = True
        images = self._images(number)
        if images and self._run != 1:
            repeats = np.where(ids == self._image_id, self._run, 1)
            ids, learnt = np.repeat(ids, repeats), np.repeat(learnt, repeats)
        labels = np.where(learnt, ids, IGNORE)
        return TokenRow(self.id(number), ids, labels, images, bool(self.cut[number]))

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens the same files."""
        return Index.open, (self.folder,)

    def id(self, row: int) -> str:
        """A row's id, without its tokens."""
        return _text(self._names[row])

    @property
    def pictures(self) -> int:
        """Number of different pictures; those of equal bytes are one."""
        return len(self._places)

    @cached_property
    def left_out(self) -> list[Rejected]:
        """What was not used: rows that became no sample, then samples that became no row."""
        return read_left_out(self.folder / LEFT_OUT)

    @cached_property
    def shown(self) -> list[Sample]:
        """A few samples, the first ones with pictures: to look at while training."""
        listed = json.loads((self.folder / SHOWN).read_text(encoding="utf-8"))
        return [
            Sample(id, tuple(ImageRef(*ref) for ref in images), tuple(Turn(*turn) for turn in turns), source)
            for id, source, turns, images in listed
        ]

    def sha256(self, picture: int) -> str:
        """Hex digest of a picture's encoded bytes; empty if pictures were not looked at."""
        return bytes(self._places.column("sha256")[picture].as_py() or b"").hex()

    def _images(self, row: int) -> tuple[ImageRef, ...]:
        numbers = self._pictures[self._picture_starts[row] : self._picture_starts[row + 1]]
        return tuple(self.picture(int(number)) for number in numbers)

    def picture(self, number: int) -> ImageRef:
        """Where a picture is; they are numbered by their first rows."""
        path, member, column = (_text(self._places.column(name)[number]) for name in ("path", "member", "column"))
        return ImageRef(path, member, column)

    def _array(self, name: str) -> npt.NDArray[Any]:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r").view(np.ndarray)  # type: ignore[no-any-return]


def _table(path: Path) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _text(cell: Any) -> str:
    """Bytes of any Python string, file names that are no Unicode included."""
    return str(cell.as_py().decode("utf-8", "surrogatepass"))
