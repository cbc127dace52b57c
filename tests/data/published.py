"""Tiny stand-ins for the published data sets: facts of a made-up family, and its files on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from bunny.data import published_sets

FACTS: dict[str, dict[str, Any]] = {
    "one": {"file": "finetune/one.json", "rows": 3, "folders": ["coco/train2017"]},
    "two": {"file": "finetune/two.json", "rows": 2, "within": 0.5, "folders": ["vg/VG_100K", "vg/VG_100K_2"]},
    "both": {"file": "finetune/both.json", "rows": 5, "parts": ["one", "two"]},
}


def use_tiny_sets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sets `one` (3 rows), `two` (1 to 3 rows) and `both`, whose parts they are."""
    folder.mkdir()
    for name, facts in FACTS.items():
        tree = {
            "title": name.title(),
            "about": "made up",
            "hub": f"lab/{name}",
            "files": [{"path": facts["file"], "rows": facts["rows"], "within": facts.get("within", 0), "size": "1 kB"}],
            "images": "finetune/images",
            "archives": "images.tar",
            "folders": [{"path": path, "download": f"http://{path}.zip"} for path in facts.get("folders", ())],
            "parts": facts.get("parts", []),
            "licence": "none",
            "facts": [],
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setattr(published_sets, "facts_folder", lambda: folder)


def row(id: str, image: str | None = None, question: str = "What?\n<image>") -> dict[str, Any]:
    """A row of LLaVA JSON; without a picture, without a mark."""
    words = question if image else "Hi"
    talk = [{"from": "human", "value": words}, {"from": "gpt", "value": f"It is {id}."}]
    return {"id": id, **({"image": image} if image else {}), "conversations": talk}


ONE = [row("a", "coco/train2017/1.jpg"), row("b", "coco/train2017/2.jpg"), row("text")]
TWO = [row("a", "vg/VG_100K/1.jpg"), row("c", "vg/VG_100K_2/9.jpg")]


def write(root: Path, file: str, rows: object) -> Path:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows, indent=1), encoding="utf-8")
    return path


def picture(root: Path, name: str) -> Path:
    path = root / "finetune" / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def make_parts(root: Path) -> Path:
    """`one` and `two` on disk, whole."""
    write(root, "finetune/one.json", ONE)
    write(root, "finetune/two.json", TWO)
    for item in (*ONE, *TWO):
        if "image" in item:
            picture(root, item["image"])
    return root
