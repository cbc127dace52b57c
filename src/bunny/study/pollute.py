"""A pool spoilt in known ways: near-duplicates, captions of other pictures, pictures of nothing.

In: a pool's source and a `Pollution`. Out: one Parquet file with the pictures inside; its columns `pollution`,
`swapped`, `origin` and `clean` (1 for what was there before, as it was) tell the truth about every row, and come out
again in the decision table of a curation. The same settings on the same pool give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from pydantic import Field

from bunny.core.log import meter
from bunny.core.publishing import publish
from bunny.core.recipe import Block, Section, make
from bunny.core.seeds import stream
from bunny.core.types import BoolArray, IntArray, Sample

FILE = "polluted.parquet"
COPIES = ("crop", "recompressed", "recoloured")
JUNK = ("blank", "noise", "stripes", "gradient")
TRUTH = ("pollution", "swapped", "origin", "clean")
SIDE = 128  # pixels of a junk picture
GROUP = 512  # rows of a row group: a picture is read with its group


class Pollution(Section):
    """How the pool is spoilt."""

    rows: int | None = Field(None, gt=0, description="rows drawn from the pool first; default: all")
    copies: int = Field(3, ge=0, description="near-duplicates of each row: crops, recompressions, recolours in turn")
    swapped: float = Field(0.3, ge=0, le=1, description="share of all rows that get the text of another")
    junk: float = Field(0.1, ge=0, lt=1, description="junk pictures beside the others, as a share of those")
    seed: int = 0


def polluted_source(folder: Path) -> Block:
    """The source that reads the spoilt pool."""
    return {"use": "table", "path": str(folder / FILE), "caption": "caption"}


def pollute(source: Block, base: Path, how: Pollution, folder: Path) -> Mapping[str, Any]:
    """Write the spoilt pool into `folder`; counts of each kind. base: folder that the source's paths are seen from."""
    rng = stream("study.pollute", how.seed)
    clean = _drawn(source, base, how, rng)
    rows = [(sample, kind) for sample in clean for kind in ("", *_turns(how.copies))]
    junk = round(how.junk * len(rows))
    texts = [_text(sample) for sample, _ in rows]
    texts += [texts[row] for row in rng.choice(len(rows), size=junk, replace=junk > len(rows))]
    swapped, texts = _swap(texts, how.swapped, len(rows), rng)
    kinds = [kind for _, kind in rows] + [f"junk {JUNK[n % len(JUNK)]}" for n in range(junk)]
    origins = [sample.id for sample, _ in rows] + [""] * junk
    order = rng.permutation(len(texts))

    def picture(row: int) -> bytes:
        own = stream(f"study.pollute.{row}", how.seed)
        if row >= len(rows):
            return _encoded(_junk(kinds[row].removeprefix("junk "), own), "WEBP", 85)
        return _near(rows[row][0], kinds[row], own)

    clean_rows = [int(not kind and not wrong) for kind, wrong in zip(kinds, swapped.tolist(), strict=True)]
    columns = {"pollution": kinds, "swapped": swapped.tolist(), "origin": origins, "clean": clean_rows}
    with publish(folder / FILE) as temporary:
        _write(temporary, order, texts, columns, picture)
    counted = {kind: kinds.count(kind) for kind in sorted(set(kinds)) if kind}
    return {"rows": len(texts), "clean": sum(clean_rows), **counted, "swapped": int(swapped.sum())}


def _drawn(source: Block, base: Path, how: Pollution, rng: np.random.Generator) -> list[Sample]:
    """Samples with a picture, by id."""
    reader = make(source, "bunny.data.sources", "pool.source", folder=base)
    found = sorted((one for one in reader.read() if isinstance(one, Sample) and one.images), key=lambda one: one.id)
    if how.rows is None or how.rows >= len(found):
        return found
    return [found[row] for row in sorted(rng.choice(len(found), size=how.rows, replace=False).tolist())]


def _turns(count: int) -> list[str]:
    return [COPIES[number % len(COPIES)] for number in range(count)]


def _text(sample: Sample) -> dict[str, Any]:
    """All that was said of the picture; what its id (a file name) tells goes to the keywords, as ids become numbers."""
    told = {"caption": sample.text, **sample.meta}
    _, folder, name = sample.id.rpartition("/")
    if folder and isinstance(told.get("keywords"), list | tuple):
        told["keywords"] = [*told["keywords"], name]
    return {key: value for key, value in told.items() if key not in TRUTH}


def _swap(
    texts: Sequence[dict[str, Any]], share: float, real: int, rng: np.random.Generator
) -> tuple[BoolArray, list[dict[str, Any]]]:
    """Which rows have got the text of another, and the texts. Only the first `real` rows, which show something.

    The chosen rows hand their texts round a ring; a row that gets an equal text is not counted as swapped.
    """
    chosen: IntArray = rng.permutation(real)[: round(share * real)]
    out = list(texts)
    swapped = np.zeros(len(texts), dtype=bool)
    for row, other in zip(chosen.tolist(), np.roll(chosen, 1).tolist(), strict=True):
        out[row] = texts[other]
        swapped[row] = texts[other] != texts[row]
    return swapped, out


def _near(sample: Sample, kind: str, rng: np.random.Generator) -> bytes:
    """The picture, or a near-duplicate of it."""
    from bunny.data.images import open_image

    picture = open_image(sample.images[0]).convert("RGB")
    if kind == "crop":
        width, height = picture.size
        left, top, right, bottom = rng.uniform(0.02, 0.08, size=4) * [width, height, width, height]
        return _encoded(picture.crop((round(left), round(top), round(width - right), round(height - bottom))))
    if kind == "recompressed":
        return _encoded(picture, "JPEG", 35)
    if kind == "recoloured":
        matrix = np.eye(3) * rng.uniform(0.75, 1.0, size=3)  # tints white paper as well as the drawing
        tinted = picture.convert("RGB", [*matrix[0], 0, *matrix[1], 0, *matrix[2], 0])
        return _encoded(ImageEnhance.Color(tinted).enhance(float(rng.uniform(0.5, 1.5))))
    return _encoded(picture, "WEBP", 95)


def _junk(kind: str, rng: np.random.Generator) -> Image.Image:
    """A picture that shows nothing."""
    colours = rng.integers(0, 256, size=(2, 3))
    across = np.linspace(0, 1, SIDE)[None, :, None]  # (1, SIDE, 1)
    mix = {
        "blank": np.zeros((1, SIDE, 1)),
        "gradient": across,
        "stripes": (np.floor(across * rng.integers(4, 17)) % 2),
        "noise": rng.random((SIDE, SIDE, 1)),
    }[kind]
    values = np.broadcast_to(colours[0] * (1 - mix) + colours[1] * mix, (SIDE, SIDE, 3))
    return Image.fromarray(values.astype(np.uint8))


def _encoded(picture: Image.Image, form: str = "WEBP", quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=quality)
    return buffer.getvalue()


def _write(
    path: Path, order: IntArray, texts: Sequence[dict[str, Any]], columns: Mapping[str, Sequence[Any]], picture: Any
) -> None:
    """The rows in a random order, numbered in it: neither place nor id tells what is what."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = sorted({key for text in texts for key in text})
    writer = None
    with meter("spoil the pool", len(order)) as bar:
        for start in range(0, len(order), GROUP):
            some = order[start : start + GROUP].tolist()
            images = []
            for row in some:
                images.append(picture(row))
                bar.advance()
            table = {"id": [f"row{number:06d}" for number in range(start, start + len(some))], "image": images}
            table |= {key: [texts[row].get(key) for row in some] for key in keys}
            table |= {name: [values[row] for row in some] for name, values in columns.items()}
            arrow = pa.table(table) if writer is None else pa.table(table, schema=writer.schema)
            writer = writer or pq.ParquetWriter(path, arrow.schema, compression="zstd")
            writer.write_table(arrow)
    if writer is not None:
        writer.close()
