"""The published data sets, as the command line shows them.

In: a name and a folder. Out: plain facts (what JSON knows). The work is done by `bunny.data`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any


def table() -> list[dict[str, Any]]:
    """Name, rows, pictures, hub id and parts of every set."""
    from bunny.data.published_sets import published, published_names

    sets = [published(name) for name in published_names()]
    return [
        {
            "name": one.name,
            "title": one.title,
            "about": one.about,
            "rows": one.rows,
            "exact": all(file.within == 0 for file in one.files),
            "pictures": one.pictures,
            "hub": one.hub,
            "parts": list(one.parts),
            "files": [file.path for file in one.files],
            "licence": one.licence,
        }
        for one in sets
    ]


def check(name: str, root: Path | None) -> dict[str, Any]:
    """What is there and what is missing of a set; `complete` says it in one word. root: None is $BUNNY_DATA or data."""
    from bunny.data.published_check import check as look
    from bunny.data.published_sets import data_root

    report = look(name, data_root(root))
    return {**asdict(report), "complete": report.complete}


def make_695k(svit: Path, wizard: Path, out: Path) -> dict[str, Any]:
    """Bunny-695K made from SVIT-mix-665K and WizardLM-evol-instruct-70K: what went in."""
    from bunny.data.make_695k import make_695k as make

    made = make(svit, wizard, out)
    return {
        "path": str(made.path),
        "rows": made.rows,
        "from_svit": made.kept,
        "from_wizardlm": made.added,
        "left_out_without_picture": made.dropped,
        "rejected": dict(made.reasons),
        "rejected_list": str(made.rejected_path) if made.rejected else None,
    }
