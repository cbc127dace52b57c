"""MME's text files: which question each line belongs to, and its gold answer."""

from __future__ import annotations

from pathlib import Path

from bunny.evaluate.answers import lines_of
from bunny.evaluate.official.benchmark import WORD

SUFFIXES = ("Please answer yes or no.", WORD.strip(), "Answer the question directly with a short sentence or phrase.")

Key = tuple[str, str, str]
"""Task, picture without ending, question without what is appended to it."""


def gold_of(folder: Path) -> dict[Key, str]:
    """Yes or no for every question of the release folder, or of the official tool's result templates."""
    gold: dict[Key, str] = {}
    for path in sorted(folder.rglob("*.txt")):
        for line in lines_of(path):
            cells = line.strip().split("\t")
            if len(cells) >= 2 and cells[-1].lower() in ("yes", "no"):
                task = path.relative_to(folder).parts[0].removesuffix(".txt")
                name = cells[0] if len(cells) > 2 else path.name
                gold[key_of(f"{task}/{name}", cells[-2])] = cells[-1]
    return gold


def key_of(id: str, text: str) -> Key:
    """Task, picture without ending, and the question without what is appended to it."""
    for suffix in SUFFIXES:
        text = text.replace(suffix, "")
    return id.split("/")[0], id.split("/")[-1].split(".")[0], " ".join(text.split())


def id_of(key: Key) -> str:
    return f"{key[0]}/{key[1]}: {key[2]}"
