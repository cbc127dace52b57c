"""Tars and tables as rows of a stage: conversations as they were written, captions with an instruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bunny.core.types import ImageRef, Sample, Turn
from bunny.data.makers.captions import INSTRUCTIONS
from bunny.data.mixture import make_mixture
from bunny.data.writers.parquet import USE as Parquet
from bunny.data.writers.webdataset import USE as WebDataset

TALK = (Turn("user", "<image>\nWhat?"), Turn("assistant", "It."), Turn("user", "Sure?"), Turn("assistant", "Yes."))


def written(folder: Path, kind: str) -> dict[str, Any]:
    """A set of a pair and a conversation in a layout; the block that reads it."""
    refs = []
    for name in ("a", "b"):
        Image.new("RGB", (4, 4), "red" if name == "a" else "blue").save(folder / f"{name}.png")
        refs.append(ImageRef(str(folder / f"{name}.png")))
    rows = [Sample.pair("a", refs[0], "words", "set"), Sample("b", (refs[1],), TALK, "set")]
    (WebDataset() if kind == "webdataset" else Parquet()).write(iter(rows), folder / "out")
    return {"use": kind, "path": "out"}


@pytest.mark.parametrize("kind", ["webdataset", "table", "hf_dataset"])
def test_conversations_come_back_and_captions_get_an_instruction(tmp_path: Path, kind: str) -> None:
    block = written(tmp_path, kind)
    mixed, rejected = make_mixture([block, {**block, "plain": True, "cap": 2}], [], seed=0, folder=tmp_path)
    found = [(row.id, row.turns) for row in mixed.samples]
    (told,) = [turns for id, turns in found if id == "a" and turns[0].text != "<image>"]
    assert not rejected and mixed.used == {kind: 2, f"{kind}~2": 2}
    assert told[0].text.removeprefix("<image>\n") in INSTRUCTIONS and told[1] == Turn("assistant", "words")
    assert ("a", (Turn("user", "<image>"), Turn("assistant", "words"))) in found
    assert [turns for id, turns in found if id == "b"] == [TALK, TALK]
    assert all(len(row.images) == 1 and row.images[0].member for row in mixed.samples)
