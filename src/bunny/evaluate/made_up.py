"""A small made-up set of named pictures, for the shared suite (`Benchmark.example`)."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

THINGS = {"dog": (220, 20, 20), "car": (30, 60, 230), "tree": (30, 160, 40), "house": (250, 220, 20)}
COPIES = 6


def named_pictures(folder: Path) -> Path:
    """The path of a Parquet file: six pictures of each of four things, each thing in a colour of its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for word, colour in THINGS.items():
        for copy in range(COPIES):
            picture = Image.new("RGBA", (48, 40), (0, 0, 0, 0))
            ImageDraw.Draw(picture).rectangle((4 + copy, 4, 40, 34), fill=colour)
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            absent = [other for other in THINGS if other != word]
            rows.append({"id": f"{word}{copy}", "image": buffer.getvalue(), "words": [word], "absent": absent})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "named.parquet")
    return folder / "named.parquet"
