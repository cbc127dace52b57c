"""Why a sample was kept or dropped, from the decision table of a finished curation.

In: a run folder and a sample's id. Out: its row, with the sample that stands for it.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.pipeline.flow import FOLDERS


def explain(run: Path, sample: str) -> dict[str, Any]:
    """The sample's decision as a flat mapping. Raises UserError for an unknown run or id, naming near ones."""
    import pyarrow.parquet as pq

    path = next(
        (p for p in (run / "decisions.parquet", run / FOLDERS["curate"] / "decisions.parquet") if p.exists()), None
    )
    if path is None:
        raise UserError(f"{run}: no decisions there", fix="curate first: `bunny curate run RECIPE`")
    rows = pq.read_table(path, filters=[("id", "=", sample)]).to_pylist()
    if not rows:
        ids = pq.read_table(path, columns=["id"]).column("id").to_pylist()
        close = difflib.get_close_matches(sample, ids, n=3, cutoff=0.5)
        raise UserError(f"{run}: no sample is called `{sample}`", fix="near: " + ", ".join(close) if close else "")
    return {key: value for key, value in rows[0].items() if value is not None and value != ""}
