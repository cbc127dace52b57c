"""Rows of Parquet tables as a part of a stage: their conversations, or an instruction and the caption.

In: the files of `sources/table.py`. Out: one conversation a row; rows that cannot be used come from `read()` as
`Rejected`.
"""

from __future__ import annotations

from typing import Any

from bunny.core.types import Sample
from bunny.data.makers._captioned import Captioned
from bunny.data.sources.table import Table


class StoredTable(Table, Captioned):
    """`{use: table, path: pool/*.parquet, caption: title}`"""

    def sample(self, where: str, raw: Any) -> Sample:
        return self.as_conversation(super().sample(where, raw))


USE = StoredTable
