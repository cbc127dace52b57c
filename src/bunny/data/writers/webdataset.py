"""WebDataset tars in img2dataset's layout: `00000.tar` with picture, `.txt` and `.json` side by side, `00000.parquet`
with one row a sample, `00000_stats.json` with counts.

In: image-text pairs. Out: shards that `{use: webdataset}`, webdataset and open_clip read. Pictures go in byte for byte.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bunny.core.protocols import Facts
from bunny.core.recipe import Section
from bunny.core.sample_table import json_value
from bunny.core.types import Rejected, Sample
from bunny.data.containers import ImageError
from bunny.data.writers._pictures import Encoded, encoded
from bunny.data.writers._shards import write_shards

_UNSAFE = re.compile(r"[%.\\\x00-\x1f\x7f]|^/|(?<=/)/|/$")
_LONGEST = 180  # bytes of a key: with a suffix, file systems take 255


class WebDataset(Section):
    """`{use: webdataset}`"""

    samples_per_shard: int = Field(10_000, gt=0)
    keys: Literal["id", "number"] = "id"  # id: dots and the like escaped (%2E); number: shard and place, 000000012

    def write(self, samples: Iterator[Sample], folder: Path, facts: Facts | None = None) -> list[Rejected]:
        """Write the shards; the samples without exactly one readable picture, with reasons."""

        def know(ids: Sequence[str]) -> Any:
            return facts.rows(ids).to_pylist() if facts else None

        def write(some: Sequence[Sample], work: Path, name: str) -> list[Rejected]:
            return self._shard(some, facts, work, name)

        return write_shards(samples, folder, self.samples_per_shard, ["webdataset", self.model_dump()], write, know)

    def _shard(self, some: Sequence[Sample], facts: Facts | None, work: Path, name: str) -> list[Rejected]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        scores = facts.rows([one.id for one in some]) if facts else pa.table({})
        known = scores.to_pylist() if facts else [{} for _ in some]
        rows: list[dict[str, Any]] = []
        rejected: list[Rejected] = []
        with tarfile.open(work / f"{name}.tar", "w", format=tarfile.GNU_FORMAT) as tar:
            for number, sample in enumerate(some):
                row = {**known[number], **_words(sample), "key": self._key(sample.id, name, number)}
                try:
                    picture = _only_picture(sample)
                    row |= {"width": picture.width, "height": picture.height, "sha256": picture.sha256}
                    _add(tar, row["key"], picture, sample, {**sample.meta, **row})
                except ImageError as error:
                    rejected.append(Rejected(sample.id, error.where, error.reason, error.detail))
                    row |= {"status": "failed_to_read", "error_message": f"{error.reason}: {error.detail}"}
                rows.append(row)
        table = pa.Table.from_pylist(rows, schema=_schema(scores.schema))
        pq.write_table(table, work / f"{name}.parquet", compression="zstd")
        counts = {"count": len(some), "successes": len(some) - len(rejected), "failed_to_read": len(rejected)}
        (work / f"{name}_stats.json").write_text(json.dumps(counts, indent=1), encoding="utf-8")
        return rejected

    def _key(self, id: str, shard: str, number: int) -> str:
        if self.keys == "number":
            return f"{shard}{number:0{len(str(self.samples_per_shard - 1))}d}"
        key = _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), id)
        return key if 0 < len(key.encode()) <= _LONGEST else sha256(id.encode()).hexdigest()[:32]


def _only_picture(sample: Sample) -> Encoded:
    """Raises ImageError."""
    if len(sample.images) != 1:
        reason = "several_pictures" if sample.images else "no_picture"
        raise ImageError(reason, sample.id, f"{len(sample.images)} pictures, the layout holds one a sample")
    return encoded(sample.images[0])


def _add(tar: tarfile.TarFile, key: str, picture: Encoded, sample: Sample, facts: dict[str, Any]) -> None:
    if any(turn.role != "assistant" for turn in sample.turns):  # a conversation has more to it than its answers
        facts["conversations"] = [{"role": turn.role, "text": turn.text} for turn in sample.turns]
    text = json.dumps(facts, ensure_ascii=False, default=json_value)
    for suffix, data in ((picture.suffix, picture.data), ("txt", sample.text.encode()), ("json", text.encode())):
        entry = tarfile.TarInfo(f"{key}.{suffix}")  # time and owner stay 0: the same samples give the same bytes
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


def _words(sample: Sample) -> dict[str, Any]:
    words = {"id": sample.id, "caption": sample.text, "source": sample.source}
    return {**words, "status": "success", "error_message": None}


def _schema(scores: Any) -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    kinds = {"id": text, "key": text, "caption": text, "source": text, "status": text, "error_message": text}
    kinds |= {"width": number, "height": number, "sha256": text}
    return pa.schema([*kinds.items(), *((one.name, one.type) for one in scores if one.name not in kinds)])


USE = WebDataset
