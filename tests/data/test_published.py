"""`{use: published}`: the conversations of a published set, from its file or its parts, nothing lost."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from bunny.core.errors import UserError
from bunny.core.recipe import make
from bunny.core.types import Rejected, Sample
from bunny.data.makers import Maker
from bunny.data.makers.published import Published
from bunny.data.mixture import make_mixture
from tests.data.published import ONE, make_parts, row, use_tiny_sets, write


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_sets(tmp_path / "facts", monkeypatch)
    monkeypatch.delenv("BUNNY_DATA", raising=False)


def ids(rows: list[Sample | Rejected]) -> list[str]:
    return [row.id for row in rows]


def test_a_set_is_read_in_the_order_of_its_file_with_the_pictures_mark_first(tmp_path: Path) -> None:
    make_parts(tmp_path / "data")
    got = list(Published(name="one", folder=tmp_path).read())
    assert ids(got) == ["a", "b", "text"]
    first = got[0]
    assert isinstance(first, Sample)
    assert first.turns[0].text == "<image>\nWhat?"
    assert first.images[0].path == str(tmp_path / "data/finetune/images/coco/train2017/1.jpg")
    assert first.source == "one"


def test_a_composed_set_is_its_parts_one_after_the_other_with_unique_ids(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_parts(tmp_path / "data")
    with caplog.at_level(logging.INFO, "bunny"):
        got = list(Published(name="both", folder=tmp_path).read())
    assert ids(got) == ["a", "b", "text", "a~2", "c"]
    assert [row.source for row in got if isinstance(row, Sample)] == ["one", "one", "one", "two", "two"]
    assert "put together from its parts one, two" in caplog.text


def test_the_released_file_of_a_composed_set_is_taken_where_it_is(tmp_path: Path) -> None:
    make_parts(tmp_path / "data")
    write(tmp_path / "data", "finetune/both.json", [ONE[2]])
    assert ids(list(Published(name="both", folder=tmp_path).read())) == ["text"]


def test_long_turns_are_kept_for_training_to_cut(tmp_path: Path) -> None:
    long = row("long")
    long["conversations"][1]["value"] = "word " * 10_000
    write(tmp_path, "finetune/one.json", [long])
    (got,) = Published(name="one", root=str(tmp_path)).read()
    assert isinstance(got, Sample)


def test_the_environment_names_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNNY_DATA", str(make_parts(tmp_path / "elsewhere")))
    assert len(list(Published(name="one").read())) == 3


def test_a_missing_file_is_named_with_what_to_download_and_the_check(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Published(name="both", root=str(tmp_path)).read()
    said = str(caught.value)
    assert said.startswith(f"Both: no {tmp_path}/finetune/both.json; download both.json")
    assert f"`bunny data check both --root {tmp_path}`" in said
    assert "\n" not in said


def test_an_unknown_name_is_told_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean `both`"):
        Published(name="boht", folder=tmp_path).read()


def test_in_a_mixture_weight_and_cap_count_and_rejected_rows_are_handed_over(tmp_path: Path) -> None:
    root = make_parts(tmp_path / "data")
    (root / "finetune/images/vg/VG_100K/1.jpg").unlink()
    blocks = [{"use": "published", "name": "both", "weight": 2}, {"use": "published", "name": "one", "cap": 1}]
    mixed, rejected = make_mixture(blocks, [], seed=0, folder=tmp_path)
    assert mixed.available == {"published": 4, "published~2": 3}
    assert mixed.used == {"published": 8, "published~2": 1}
    assert ("a", "missing_file") in {(row.id, row.reason) for row in rejected}


def test_make_gives_the_usable_rows_and_logs_how_many_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (make_parts(tmp_path / "data") / "finetune/images/coco/train2017/1.jpg").unlink()
    maker = make({"use": "published", "name": "one"}, "bunny.data.makers", folder=tmp_path)
    assert isinstance(maker, Maker)
    assert [row.id for row in maker.make([], np.random.default_rng(0))] == ["b", "text"]
    assert "1 rows cannot be used" in caplog.text
