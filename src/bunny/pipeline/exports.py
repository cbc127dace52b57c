"""A finished curation written again in another format, beside the rest of it.

In: a run folder, the name of a writer, its settings. Out: a folder of files, a list of what it could not take, and a
card that knows of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from bunny.core.errors import UserError
from bunny.core.recipe import Block, make
from bunny.core.store import write_atomic
from bunny.pipeline.curated import CuratedRun, find_run

NOT_WRITTEN = "not_written.jsonl"
WRITERS = "bunny.data.writers"


def export(run: Path, to: str, settings: Sequence[str] = (), output: Path | None = None) -> dict[str, Any]:
    """Write the samples that stay as `to` says. settings: `key=value` of that writer. output: default CURATED/TO.

    Raises UserError for an unknown run, format or setting, and on a full disk (finished shards are kept).
    """
    found = find_run(run)
    block = {"use": to, **dict(parsed(one) for one in settings)}
    told = write(found, block, output or found.folder / to)
    if output is None and found.summary:
        write_card_of(found)
    return told


def write(run: CuratedRun, block: Block, folder: Path) -> dict[str, Any]:
    """Write a curation's samples with the writer that the block stands for; what was written and what not."""
    from bunny.data.row_facts import RowFacts

    writer = make(block, WRITERS, "export")
    samples = run.samples()
    first = next(samples, None)  # a run without its samples is found before anything is written
    rejected = writer.write(chain([first] if first else [], samples), folder, RowFacts(run.table))
    listed = folder / NOT_WRITTEN
    listed.unlink(missing_ok=True)
    if rejected:
        write_atomic(listed, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in rejected))
    kept = int(run.rows(["kept"]).column("kept").to_numpy().sum())
    return {
        "format": block["use"],
        "folder": str(folder),
        "written": kept - len(rejected),
        "not_written": len(rejected),
        "reasons": dict(Counter(one.reason for one in rejected).most_common()),
        "list": str(listed) if rejected else None,
    }


def write_card_of(run: CuratedRun, licence: str = "") -> Path:
    """The dataset card of a finished curation, made anew from what lies in its folder."""
    from bunny.curate.card import CARD, front_matter, write_card

    name = front_matter(run.folder / CARD).get("pretty_name") or Path(run.name).resolve().name
    return write_card(run.folder, name=str(name), settings=dict(run.manifest.get("settings", {})), licence=licence)


def parsed(setting: str) -> tuple[str, Any]:
    """(key, value) of `key=value`; values are YAML. Raises UserError."""
    import yaml

    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UserError(f"`{setting}` is no setting", fix="write it as KEY=VALUE")
    try:
        return key.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"`{setting}`: not valid YAML: {' '.join(str(error).split())}") from None
