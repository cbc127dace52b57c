"""A DataComp subset: the uids of the samples that stay, as its resharder and its organisers read them.

In: samples whose ids (or a value of their meta) are 128-bit hexadecimal uids. Out: one `.npy` of dtype `u8,u8`, sorted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bunny.core.errors import UserError
from bunny.core.protocols import Facts
from bunny.core.publishing import publish
from bunny.core.recipe import Section
from bunny.core.types import Rejected, Sample

_UID = re.compile(r"[0-9a-fA-F]{32}")


class DataCompUids(Section):
    """`{use: datacomp_uids}`"""

    uid: str = "id"  # the sample's id, or the key of its meta that holds the uid
    file: str = "uids.npy"

    def write(self, samples: Iterator[Sample], folder: Path, facts: Facts | None = None) -> list[Rejected]:
        """Write the file. Raises UserError for the first sample without a uid: a subset with gaps is of no use."""
        halves = np.fromiter((self._halves(sample) for sample in samples), np.dtype("u8,u8"))
        halves.sort()
        with publish(folder / self.file) as temporary, temporary.open("wb") as file:
            np.save(file, halves, allow_pickle=False)
        return []

    def _halves(self, sample: Sample) -> tuple[int, int]:
        uid = str(sample.id if self.uid == "id" else sample.meta.get(self.uid, ""))
        if not _UID.fullmatch(uid):
            raise UserError(
                f"{sample.id}: {uid!r} is no DataComp uid (32 hexadecimal digits)",
                fix="set `uid` to the key of the meta that holds it, or write `ids`",
            )
        return int(uid[:16], 16), int(uid[16:], 16)


USE = DataCompUids
