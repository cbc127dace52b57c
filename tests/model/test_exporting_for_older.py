"""What an exported folder says where the original's libraries are older or go by names. Numbers: tests/parity."""

from __future__ import annotations

from pathlib import Path

import pytest

from bunny.core.errors import UserError
from bunny.model.exporting import _joined, _told_by_name, export_original


def test_merges_are_words_and_blanks_within_are_refused() -> None:
    assert _joined([["a", "b"], "c d"], Path("x")) == ["a b", "c d"]
    with pytest.raises(UserError, match="words with blanks"):
        _joined([["a ", "b"]], Path("x"))


@pytest.mark.parametrize(
    ("path", "kind", "right"),
    [
        ("models/SigLIP-so400m", "siglip_vision_model", True),
        ("EVA02_CLIP_L_336_psz14_s6B.pt", "eva02_vision", True),
        ("openai/clip-vit-large-patch14-336", "clip_vision_model", True),
        ("designs/clip-vit", "clip_vision_model", False),
        ("models/tower", "siglip_vision_model", False),
        ("models/tower", "clip_vision_model", False),
    ],
)
def test_towers_that_the_original_would_take_for_another_are_known(path: str, kind: str, right: bool) -> None:
    assert _told_by_name(path, kind) == right


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model there"):
        export_original(tmp_path / "none", tmp_path / "out")
