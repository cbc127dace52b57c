"""Converted weights in the cache: made once, checked at every use, made again when spoilt."""

from __future__ import annotations

from pathlib import Path

import pytest

from bunny.core.errors import UserError
from bunny.model import bundled


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A converter that writes one file; the list grows with each conversion."""
    calls: list[Path] = []

    def convert(folder: Path) -> None:
        calls.append(folder)
        (folder / "model.bin").write_text("weights")

    monkeypatch.setenv("BUNNY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundled, "_CONVERTERS", {"fake": convert})
    return calls


def test_a_package_is_converted_once(made: list[Path]) -> None:
    first = bundled.resolve("bundled:fake")
    assert bundled.resolve("bundled:fake") == first
    assert len(made) == 1
    assert (Path(first) / "model.bin").read_text() == "weights"


@pytest.mark.parametrize("harm", ["changed", "deleted", "sums deleted"])
def test_a_spoilt_file_is_noticed_and_made_again(made: list[Path], harm: str) -> None:
    folder = Path(bundled.resolve("bundled:fake"))
    if harm == "changed":
        (folder / "model.bin").write_text("weightz")
    else:
        (folder / ("model.bin" if harm == "deleted" else bundled.CHECKSUMS)).unlink()
    again = Path(bundled.resolve("bundled:fake"))
    assert len(made) == 2
    assert (again / "model.bin").read_text() == "weights"


def test_a_conversion_that_was_interrupted_leaves_nothing_that_counts(
    made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> None:
        (folder / "model.bin").write_text("half")
        raise RuntimeError("killed")

    good = dict(bundled._CONVERTERS)
    monkeypatch.setattr(bundled, "_CONVERTERS", {"fake": fails})
    with pytest.raises(RuntimeError):
        bundled.resolve("bundled:fake")
    monkeypatch.setattr(bundled, "_CONVERTERS", good)
    assert (Path(bundled.resolve("bundled:fake")) / "model.bin").read_text() == "weights"


def test_names_are_helped_and_others_are_left_alone(made: list[Path]) -> None:
    with pytest.raises(UserError, match="nothing bundled is called `fak`; did you mean `fake`"):
        bundled.resolve("bundled:fak")
    assert bundled.resolve("some/hub-name") == "some/hub-name"


def test_a_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(UserError, match="`no_such_package` is not installed; pip install"):
        bundled.package_folder("no_such_package")
