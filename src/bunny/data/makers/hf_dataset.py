"""Rows of Hugging Face data sets on disk as a part of a stage: their conversations, or an instruction and the caption.

In: the files of `sources/hf_dataset.py`. Out: one conversation a row; rows that cannot be used come from `read()` as
`Rejected`.
"""

from __future__ import annotations

from typing import Any

from bunny.core.types import Sample
from bunny.data.makers._captioned import Captioned
from bunny.data.sources.hf_dataset import HfDataset


class StoredDataset(HfDataset, Captioned):
    """`{use: hf_dataset, path: my_set/, split: train}`"""

    def sample(self, where: str, raw: Any) -> Sample:
        return self.as_conversation(super().sample(where, raw))


USE = StoredDataset
