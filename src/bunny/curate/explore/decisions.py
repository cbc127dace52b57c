"""`decisions.parquet` in, its columns out as arrays, each read when it is first asked for and then kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.errors import UserError
from bunny.core.types import BoolArray, FloatArray, IntArray

NO_ROW = -1


class Decisions:
    """The table of N rows. names: its columns; kept: (N,) bool."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                self.names: tuple[str, ...] = tuple(file.schema_arrow.names)
                self.types = {name: file.schema_arrow.field(name).type for name in self.names}
                self.size = int(file.metadata.num_rows)
        except FileNotFoundError:
            raise UserError(f"{path}: no decisions there", fix="curate first: `bunny curate run RECIPE`") from None
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: damaged ({' '.join(str(error).split())})", fix="curate again") from None
        if missing := {"id", "kept", "step", "reason"} - set(self.names):
            raise UserError(f"{path}: not a decision table, no column {', '.join(sorted(missing))}")
        self.path = path
        self._held: dict[tuple[str, str], Any] = {}
        self.kept: BoolArray = self._arrow("kept").to_numpy().astype(bool)

    def __len__(self) -> int:
        return self.size

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def strings(self, name: str) -> Any:
        """A column as one Arrow array (strings with 64-bit offsets: more than 2 GB of captions fit)."""

        def read(name: str) -> Any:
            import pyarrow as pa

            found = self._arrow(name)
            found = found.cast(pa.large_string()) if pa.types.is_string(found.type) else found
            found = found.combine_chunks()
            return found.combine_chunks() if hasattr(found, "chunks") else found

        return self._once("strings", name, read)

    def numbers(self, name: str) -> FloatArray:
        """(N,) float64, NaN where null."""

        def read(name: str) -> FloatArray:
            import pyarrow as pa

            values: FloatArray = self._arrow(name).cast(pa.float64(), safe=False).to_numpy()
            return values

        found: FloatArray = self._once("numbers", name, read)
        return found

    def whole(self, name: str) -> IntArray:
        """(N,) int64, -1 where null, and everywhere if there is no such column."""

        def read(name: str) -> IntArray:
            import pyarrow as pa

            if name not in self:
                return np.full(self.size, NO_ROW, np.int64)
            values: IntArray = self._arrow(name).cast(pa.int64()).fill_null(NO_ROW).to_numpy()
            return values

        found: IntArray = self._once("whole", name, read)
        return found

    def codes(self, name: str) -> tuple[IntArray, list[str]]:
        """(N,) int32 number of each row's word, and the words; null is the empty word."""

        def read(name: str) -> tuple[IntArray, list[str]]:
            if name not in self:
                return np.zeros(self.size, np.int32), [""]
            found = self._arrow(name).fill_null("").combine_chunks().dictionary_encode()
            found = found.combine_chunks() if hasattr(found, "chunks") else found
            return found.indices.to_numpy().astype(np.int32), found.dictionary.to_pylist() or [""]

        codes: tuple[IntArray, list[str]] = self._once("codes", name, read)
        return codes

    def rows_of(self, name: str) -> IntArray:
        """(N,) int64 row that a column names by its id (`twin`, `link_to`), -1 where there is none."""

        def read(name: str) -> IntArray:
            import pyarrow.compute as pc

            if name not in self:
                return np.full(self.size, NO_ROW, np.int64)
            found = pc.index_in(self.strings(name), value_set=self.strings("id"), skip_nulls=True)
            rows: IntArray = found.fill_null(NO_ROW).to_numpy().astype(np.int64)
            return rows

        rows: IntArray = self._once("rows", name, read)
        return rows

    def row(self, id: str) -> int:
        """The (first) row of an id, -1 if there is none."""
        import pyarrow.compute as pc

        return int(pc.index(self.strings("id"), id).as_py())

    def containing(self, text: str) -> BoolArray:
        """(N,) whether id or caption contains the text, whatever its case."""
        import pyarrow.compute as pc

        found = np.zeros(self.size, dtype=bool)
        for name in ("id", "caption"):
            if name in self:
                hits = pc.match_substring(self.strings(name), text, ignore_case=True)
                found |= hits.fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
        return found

    def record(self, row: int) -> dict[str, Any]:
        """All that the table says of one row; numbers that are none are left out."""
        said = {name: self.strings(name)[row].as_py() for name in self.names}
        return {name: value for name, value in said.items() if value is not None and not _is_nan(value)}

    def numeric(self) -> list[str]:
        """Names of the columns that rows can be sorted by."""
        import pyarrow as pa

        return [name for name, kind in self.types.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]

    def _arrow(self, name: str) -> Any:
        import pyarrow.parquet as pq

        return pq.read_table(self.path, columns=[name]).column(name)

    def _once(self, kind: str, name: str, read: Any) -> Any:
        if (kind, name) not in self._held:
            self._held[kind, name] = read(name)
        return self._held[kind, name]


def plain(values: npt.NDArray[Any]) -> list[Any]:
    """A list for JSON: NaN becomes None."""
    return [None if _is_nan(value) else value for value in values.tolist()]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
