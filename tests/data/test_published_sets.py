"""The facts of the published data sets: each with its source, and which files on disk are the set."""

from __future__ import annotations

from pathlib import Path

import pytest

from bunny.core.errors import UserError
from bunny.data.published_sets import data_root, published, published_names
from tests.data.published import make_parts, use_tiny_sets, write

WANTED = {"bunny-pretrain-laion-2m", "bunny-695k", "bunny-llava-1.4m", "bunny-allava-1.3m", "bunny-llava-allava-2m"}


def test_the_sets_of_the_original_are_there() -> None:
    assert set(published_names()) >= WANTED


@pytest.mark.parametrize("name", published_names())
def test_every_fact_names_its_source_or_is_called_unknown(name: str) -> None:
    one = published(name)
    assert one.facts
    for fact in one.facts:
        assert fact.source.startswith("https://") or (fact.source == "unknown" and "unknown" in fact.fact)
    assert all((file.within == 0) == (name == "llava-665k") for file in one.files)


@pytest.mark.parametrize("name", published_names())
def test_parts_are_sets_with_the_same_picture_folder_and_add_up(name: str) -> None:
    one = published(name)
    parts = [published(part) for part in one.parts]
    assert all(part.images == one.images for part in parts)
    if parts:
        total = sum(part.rows for part in parts)
        assert all(file.fits(round(file.rows)) and abs(total - file.rows) < 0.05 * file.rows for file in one.files)


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean `bunny-695k`"):
        published("bunny-695")


def test_the_released_file_counts_before_the_parts_and_parts_only_if_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny_sets(tmp_path / "facts", monkeypatch)
    both, root = published("both"), make_parts(tmp_path / "data")
    assert [file.path for file in both.choice(root)[0]] == ["finetune/one.json", "finetune/two.json"]
    assert both.choice(root)[1]
    assert both.missing(root) == []
    (root / "finetune" / "two.json").unlink()
    assert both.choice(root) == (both.files, False)
    first, second = both.missing(root)
    assert first.startswith("download both.json (size: 1 kB) from https://huggingface.co/datasets/lab/both to ")
    assert second.startswith("or its parts instead: download two.json")
    write(root, "finetune/both.json", [])
    assert both.choice(root) == (both.files, False)
    assert both.missing(root) == []


def test_the_root_is_the_given_folder_or_the_variable_or_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BUNNY_DATA", raising=False)
    assert data_root(None) == Path("data")
    assert data_root(None, tmp_path) == tmp_path / "data"
    assert data_root("big", tmp_path) == tmp_path / "big"
    monkeypatch.setenv("BUNNY_DATA", "/somewhere")
    assert data_root(None, tmp_path) == Path("/somewhere")
    assert data_root("/else", tmp_path) == Path("/else")
