"""Parquet shards with pictures inside, as Hugging Face `datasets` and `{use: table}` read them.

In: samples with at most one picture. Out: `00000.parquet` …: id, image {bytes, path}, caption, source, the scores of
the curation, meta and longer conversations as JSON text. Pictures go in byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from bunny.core.protocols import Facts
from bunny.core.recipe import Section
from bunny.core.sample_table import json_value
from bunny.core.types import Rejected, Sample
from bunny.data.containers import ImageError
from bunny.data.writers._pictures import encoded
from bunny.data.writers._shards import batches, write_shards

ROWS_PER_GROUP = 100  # what readers hold at once; the Hub's viewer wants groups of this size for pictures
_DTYPES = {"float": "float32", "double": "float64", "halffloat": "float16"}


class ParquetShards(Section):
    """`{use: parquet}`"""

    samples_per_shard: int = Field(10_000, gt=0)

    def write(self, samples: Iterator[Sample], folder: Path, facts: Facts | None = None) -> list[Rejected]:
        """Write the shards; the samples with a picture that cannot be read, or with several, and reasons."""

        def know(ids: Sequence[str]) -> Any:
            return facts.rows(ids).to_pylist() if facts else None

        def write(some: Sequence[Sample], work: Path, name: str) -> list[Rejected]:
            return _shard(some, facts, work / f"{name}.parquet")

        return write_shards(samples, folder, self.samples_per_shard, ["parquet", self.model_dump()], write, know)


def _shard(some: Sequence[Sample], facts: Facts | None, path: Path) -> list[Rejected]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = facts.rows([]).schema if facts else pa.schema([])
    schema = _schema(known)
    compression = {name: "NONE" if name == "image.bytes" else "ZSTD" for name in _leaves(schema)}
    rejected: list[Rejected] = []
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=["source"]) as writer:
        for batch in batches(some, ROWS_PER_GROUP):
            scores = facts.rows([one.id for one in batch]).to_pylist() if facts else [{} for _ in batch]
            rows = []
            for sample, score in zip(batch, scores, strict=True):
                try:
                    rows.append({**score, **_row(sample)})
                except ImageError as error:
                    rejected.append(Rejected(sample.id, error.where, error.reason, error.detail))
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=ROWS_PER_GROUP)
    return rejected


def _row(sample: Sample) -> dict[str, Any]:
    """Raises ImageError."""
    if len(sample.images) > 1:
        raise ImageError("several_pictures", sample.id, f"{len(sample.images)} pictures, a row holds one")
    image = None
    if sample.images:
        picture = encoded(sample.images[0])
        image = {"bytes": picture.data, "path": f"{picture.sha256[:32]}.{picture.suffix}"}
    turns = [{"role": turn.role, "text": turn.text} for turn in sample.turns]
    plain = all(turn.role == "assistant" for turn in sample.turns)
    return {
        "id": sample.id,
        "image": image,
        "caption": sample.text,
        "source": sample.source,
        "meta": json.dumps(dict(sample.meta), ensure_ascii=False, default=json_value),
        "conversations": None if plain else json.dumps(turns, ensure_ascii=False),
    }


def _schema(known: Any) -> Any:
    """Columns, and what makes `datasets` show `image` as a picture."""
    import pyarrow as pa

    text = pa.string()
    image = pa.struct([("bytes", pa.binary()), ("path", text)])
    kinds = {"id": text, "image": image, "caption": text, "source": text, "meta": text, "conversations": text}
    kinds |= {one.name: one.type for one in known if one.name not in kinds}
    features = {
        name: {"_type": "Image"} if name == "image" else {"dtype": _DTYPES.get(str(kind), str(kind)), "_type": "Value"}
        for name, kind in kinds.items()
    }
    about = json.dumps({"info": {"features": features}})
    return pa.schema(list(kinds.items()), metadata={"huggingface": about})


def _leaves(schema: Any) -> list[str]:
    return [leaf for name in schema.names for leaf in (["image.bytes", "image.path"] if name == "image" else [name])]


USE = ParquetShards
