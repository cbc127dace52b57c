"""Sets become rows in one fixed order, with as many of each as was asked for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Sample, Turn
from bunny.data.mixture import make_mixture, mix


def rows(name: str, count: int, per_picture: int = 1) -> list[Sample]:
    talk = (Turn("user", "<image>"), Turn("assistant", "x"))
    return [Sample(f"{name}{n}", (ImageRef(f"{n // per_picture}.png"),), talk, name) for n in range(count)]


def adjacent(samples: list[Sample]) -> bool:
    """Whether no picture comes again after another one."""
    runs = [a.images for a, b in zip(samples, [*samples[1:], None], strict=True) if b is None or a.images != b.images]
    return len(runs) == len(set(runs))


def test_every_row_comes_once_in_an_order_fixed_by_the_seed() -> None:
    sets = {"a": rows("a", 30), "b": rows("b", 20)}
    mixed = mix(sets, seed=0)
    assert Counter(row.id for row in mixed.samples) == Counter(row.id for row in [*sets["a"], *sets["b"]])
    assert mixed.samples == mix(sets, seed=0).samples != mix(sets, seed=1).samples
    assert mixed.used == mixed.available == {"a": 30, "b": 20}
    assert len({row.source for row in mixed.samples[:10]}) == 2


@pytest.mark.parametrize(
    ("weight", "cap", "used"), [(0.5, None, 15), (2, None, 60), (2.5, 70, 70), (1, 7, 7), (0.1, 9, 3)]
)
def test_weights_and_caps_set_the_number_of_rows(weight: float, cap: int | None, used: int) -> None:
    mixed = mix({"a": rows("a", 30)}, seed=0, weights={"a": weight}, caps={"a": cap} if cap else None)
    assert mixed.used == {"a": used}
    assert len({row.id for row in mixed.samples}) == used
    times = Counter(row.id.partition("@")[0] for row in mixed.samples)
    assert max(times.values()) - (min(times.values()) if len(times) == 30 else 0) <= 1


def test_a_change_to_one_set_leaves_the_draw_of_another() -> None:
    small = mix({"a": rows("a", 30), "b": rows("b", 5)}, seed=0, weights={"a": 0.5})
    large = mix({"a": rows("a", 30), "b": rows("b", 50)}, seed=0, weights={"a": 0.5})
    drawn = [{row.id for row in mixed.samples if row.source == "a"} for mixed in (small, large)]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("weight", [0.5, 1, 3])
def test_by_picture_keeps_all_rows_of_a_picture_together_across_sets(weight: float) -> None:
    sets = {"a": rows("a", 40, per_picture=4), "b": rows("b", 20, per_picture=2)}
    mixed = mix(sets, seed=0, weights={"a": weight}, by_picture=True)
    assert adjacent(mixed.samples)
    assert mixed.pictures == 10
    assert [row.images for row in mixed.samples] != sorted((row.images for row in mixed.samples), key=str)


def test_by_picture_draws_whole_pictures() -> None:
    mixed = mix({"a": rows("a", 40, per_picture=4)}, seed=0, weights={"a": 0.5}, by_picture=True)
    assert set(Counter(row.images for row in mixed.samples).values()) == {4}


def test_rows_without_pictures_are_not_lumped_together() -> None:
    text = [Sample(f"t{n}", (), (Turn("user", "a"), Turn("assistant", "b"))) for n in range(10)]
    mixed = mix({"t": text, "a": rows("a", 40, per_picture=4)}, seed=0, by_picture=True)
    places = [at for at, row in enumerate(mixed.samples) if not row.images]
    assert len(places) == 10
    assert places != list(range(places[0], places[0] + 10))


def test_wrong_weights_are_user_errors() -> None:
    with pytest.raises(UserError, match="weight or cap for b: no such set; known: a"):
        mix({"a": rows("a", 3)}, seed=0, weights={"b": 1})
    for weight in (0, -1, float("nan")):
        with pytest.raises(UserError, match="must be above 0"):
            mix({"a": rows("a", 3)}, seed=0, weights={"a": weight})


def test_an_empty_set_mixes_to_nothing() -> None:
    assert mix({"a": []}, seed=0, weights={"a": 2}).samples == []


def test_a_stages_blocks_become_its_rows_and_stored_rows_that_fail_are_handed_over(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
    stored = [{"id": "s1", "image": "a.png", "conversations": talk}, {"id": "s2", "conversations": talk}]
    (tmp_path / "set.json").write_text(json.dumps(stored))
    pairs = [Sample.pair(f"p{n}", ImageRef(f"{n}.png"), "words") for n in range(10)]
    blocks = [
        {"use": "captions", "weight": 0.5},
        {"use": "captions", "plain": True, "cap": 3},
        {"use": "llava_json", "path": "set.json"},
    ]
    mixed, rejected = make_mixture(blocks, pairs, seed=0, folder=tmp_path)
    assert mixed.used == {"captions": 5, "captions~2": 3, "llava_json": 1}
    assert mixed.available == {"captions": 10, "captions~2": 10, "llava_json": 1}
    assert [(row.id, row.reason) for row in rejected] == [("s2", "image_marks")]


def test_a_block_that_makes_nothing_or_no_conversations_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="captions: made nothing of 0 samples"):
        make_mixture([{"use": "captions"}], [], seed=0, folder=tmp_path)
    with pytest.raises(UserError, match="makes no conversations"):
        make_mixture([{"use": "bunny.core.recipe:LoraSection"}], [], seed=0, folder=tmp_path)
