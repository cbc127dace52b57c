"""What a curation found out about samples, for those who write them: scores of a decision table, by id.

In: a Parquet table with one row an id. Out: Arrow rows aligned with any ids. Only rows and columns that are wanted are
held, so a table of billions serves for the millions that stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError

NO_SCORES = frozenset({"kept", "twin_kept", "twin_cosine", "width", "height", "phash"})
"""What says nothing of a sample that stays, or is known without the table."""


class RowFacts:
    """The figures (numbers and truth values) of a decision table's kept rows: a `Facts` for writers."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if the table cannot be read."""
        import pyarrow as pa
        import pyarrow.dataset as ds

        try:
            table = ds.dataset(path, format="parquet")
            kinds = pa.types
            wanted = [
                field.name
                for field in table.schema
                if field.name not in NO_SCORES
                and (kinds.is_integer(field.type) or kinds.is_floating(field.type) or kinds.is_boolean(field.type))
            ]
            self._table = table.to_table(columns=["id", *wanted], filter=ds.field("kept")).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})", fix="curate again") from None
        self._ids = self._table.column("id")
        self._scores = self._table.drop_columns(["id"])

    def rows(self, ids: Sequence[str]) -> Any:
        """(n rows) Arrow table, the same columns every time; nulls for an id that the table does not keep."""
        import pyarrow as pa
        import pyarrow.compute as pc

        return self._scores.take(pc.index_in(pa.array(ids, self._ids.type), value_set=self._ids))
