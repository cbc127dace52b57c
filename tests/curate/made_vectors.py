"""A made-up clip-retrieval folder for tests of whole curations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_vectors(folder: Path, files: int, rows: int, same: int = 3) -> None:
    """So many rows in each file, `same` of them near one another; some captions twice or of one word, one row NaN."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(files):
        centres = np.repeat(rng.standard_normal((rows // same, 16)), same, axis=0)
        image = centres + rng.uniform(0.02, 0.3, (len(centres), 1)) * rng.standard_normal(centres.shape)
        image[7] = np.nan
        for name, values in (("img", image), ("text", image + rng.standard_normal(image.shape))):
            np.save(folder / f"{name}_emb_{number}.npy", values.astype(np.float16))
        captions = [f"thing {number} {row - (row % 8 == 1)} of a kind" for row in range(len(image))]
        captions[::10] = [f"thing-{number}-{row}" for row in range(0, len(image), 10)]
        table = pa.table({"caption": captions, "key": [f"{number}-{row:04d}" for row in range(len(image))]})
        pq.write_table(table, folder / f"metadata_{number}.parquet")
