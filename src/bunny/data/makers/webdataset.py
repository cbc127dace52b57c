"""Rows of WebDataset tars as a part of a stage: their conversations, or an instruction and the caption.

In: the files of `sources/webdataset.py`. Out: one conversation a row; rows that cannot be used come from `read()` as
`Rejected`.
"""

from __future__ import annotations

from typing import Any

from bunny.core.types import Sample
from bunny.data.makers._captioned import Captioned
from bunny.data.sources.webdataset import WebDataset


class StoredTars(WebDataset, Captioned):
    """`{use: webdataset, path: shards/, plain: true}`"""

    def sample(self, where: str, raw: Any) -> Sample:
        return self.as_conversation(super().sample(where, raw))


USE = StoredTars
