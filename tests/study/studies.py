"""A study of seconds: the tiny recipe of the whole story, four selections, two seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.test_story import recipe_file

TREE: dict[str, Any] = {
    "name": "tiny",
    "recipe": "story.yaml",
    "set": {"align": None, "tune.save_every_steps": 1, "tune.trackers": []},
    "selections": {
        "random": {},
        "all": {"whole": True},
        "curated": {"steps": [{"use": "exact"}, {"use": "cluster", "groups": 4}, {"use": "dedup", "above": 0.999}]},
    },
    "shares": [0.5],
    "seeds": [0, 1],
    "budget": {"steps": 2},
    "tasks": [{"use": "picture_yes_no", "name": "shapes", "path": "held.parquet", "per_picture": 2}],
    "measure": "ranking",
    "max_new_tokens": 3,
}


def study_file(folder: Path, **changes: Any) -> Path:
    """The study in a folder that has all it needs."""
    recipe_file(folder)
    return write_study(folder, **changes)


def write_study(folder: Path, **changes: Any) -> Path:
    """The study's file alone."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**TREE, **changes}), encoding="utf-8")
    return path
