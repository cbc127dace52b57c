"""Pool folders: made shard by shard, opened in order of the ids, whatever the shards, the engine or the accidents."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from bunny.core.errors import UserError
from bunny.curate.columns import Texts
from bunny.curate.engines import LocalEngine
from bunny.curate.order import order_of
from bunny.curate.pool import PoolFolder, open_pool
from bunny.pipeline.pool_tasks import pool_of

CLASSES = "tests.curate.recipe_classes"
COLOURS = {"use": f"{CLASSES}:Colours"}
Shelves = Callable[..., Path]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelves:
    """Writes a shard: rows, and the vectors of each if they are given."""

    def write(name: str, rows: Sequence[dict[str, Any]], folder: str = "shelf", **vectors: Any) -> Path:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for kind, values in vectors.items():
            np.save(place / f"{name}.{kind.replace('_', '.')}.npy", values)
        return place

    return write


def pictures(folder: Path, count: int) -> list[dict[str, Any]]:
    """Rows with a picture each, ids in the order of the colours."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number:02d}.png")
        rows.append({"id": f"p{number:02d}", "caption": f"red picture {number}", "image": f"p{number:02d}.png"})
    return rows


def made(source: Path, output: Path, embedder: Any = None, **settings: Any) -> PoolFolder:
    block = {"use": f"{CLASSES}:Shelf", "path": str(source)}
    engine = settings.pop("engine", LocalEngine())
    return pool_of(block, source.parent, embedder, output, engine, threads=1, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a pool folder, without the times in them."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: re.sub(rb'"seconds": [^}]*', b"", data) for name, data in found.items()}


def vector_rows(ids: str, **more: Any) -> list[dict[str, Any]]:
    return [{"id": id, "caption": f"caption of {id}", **more} for id in ids]


# order


@given(some.lists(some.lists(some.text("abé\U0001f600", max_size=3), max_size=5), max_size=4))
def test_rows_are_sorted_as_python_sorts_ids_and_each_id_comes_once(parts: list[list[str]]) -> None:
    pieces = [piece for part in parts for piece in Texts.of(part).pieces]
    ids = [id for part in parts for id in part]
    order, rejected = order_of(pieces, lambda rows: iter([(str(row), b"%d" % row) for row in rows]))
    rows = range(len(ids)) if order is None else order.tolist()
    assert [ids[row] for row in rows] == sorted(set(ids))
    assert len(rejected) == len(ids) - len(set(ids))


def test_the_pool_is_sorted_and_knows_its_samples(shelf: Shelves, tmp_path: Path) -> None:
    shelf("1", vector_rows("dc"), image=np.eye(4, dtype=np.float16)[:2])
    place = shelf("2", vector_rows("ab"), image=np.eye(4, dtype=np.float16)[2:])
    folder = made(place, tmp_path / "pool")
    pool, rejected = open_pool(tmp_path / "pool")
    assert (pool["id"].tolist(), rejected, pool.ordered) == (["a", "b", "c", "d"], (), True)
    assert pool["image"].read().argmax(axis=1).tolist() == [2, 3, 1, 0]
    assert pool["caption"].tolist() == [f"caption of {id}" for id in "abcd"]
    assert [sample.id for sample in folder.samples([3, 0, 3])] == ["d", "a", "d"]
    assert open_pool(str(tmp_path / "pool"))[0]["id"].tolist() == ["a", "b", "c", "d"]


@settings(max_examples=20, deadline=None)
@given(some.permutations(range(4)))
def test_which_row_of_an_id_stays_does_not_depend_on_the_order_of_the_shards(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    place = tmp_path_factory.mktemp("shelf")
    for name, number in enumerate(order):
        row = {"id": "x", "caption": f"version {number % 3}"}
        (place / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        np.save(place / f"{name}.image.npy", np.eye(4, dtype=np.float32)[[number]])
    made(place, place / "pool")
    pool, rejected = open_pool(place / "pool")
    assert [item.reason for item in rejected] == ["duplicate_id"] * 3
    kept = (pool["caption"][0], int(pool["image"].read().argmax()))
    _KEPT.add(kept)
    assert len(_KEPT) == 1


_KEPT: set[tuple[str, int]] = set()


def test_columns_that_stay_on_disk_share_one_index(shelf: Shelves, tmp_path: Path) -> None:
    place = shelf("1", vector_rows("dcab"), image=np.eye(4), text=np.eye(4))
    made(place, tmp_path / "pool")
    pool, _ = open_pool(tmp_path / "pool")
    for one in (pool, pool.take(np.array([True, False, True, True])), pool.take(np.array([2, 0]))):
        assert len({id(one[name].index) for name in ("id", "caption", "image", "text", "visual")}) == 1
    assert pool.take(np.array([2, 0]))["id"].tolist() == ["c", "a"]
    assert pool.take(np.array([2, 0]))["image"].read().argmax(axis=1).tolist() == [1, 2]


def test_samples_are_written_in_order_of_ids(shelf: Shelves, tmp_path: Path) -> None:
    from bunny.core.sample_table import read_samples

    shelf("1", vector_rows("hgf"), image=np.eye(3))
    place = shelf("2", vector_rows("bca"), image=np.eye(3))
    folder = made(place, tmp_path / "pool", part_rows=2)
    keep = np.array([True, False, True, True, False, True])
    assert folder.write_samples(keep, tmp_path / "kept.parquet") == 4
    kept = read_samples(tmp_path / "kept.parquet")
    assert [sample.id for sample in kept] == ["a", "c", "f", "h"]
    assert kept == folder.samples(np.flatnonzero(keep))


# columns


def test_what_the_source_knows_becomes_columns(shelf: Shelves, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "caption": "", "score": 1, "url": "u1", "words": ["no", "column"], "mixed": 1, "width": 640},
        {"id": "b", "caption": "", "score": 2, "url": None, "mixed": "two"},
    ]
    shelf("1", rows, image=np.eye(2))
    place = shelf("2", [{"id": "c", "caption": "", "score": 0.5, "count": 7, "safe": True}], image=np.eye(2)[:1])
    made(place, tmp_path / "pool")
    pool, _ = open_pool(tmp_path / "pool")
    assert pool["score"].tolist() == [1.0, 2.0, 0.5]
    assert (pool["url"].tolist(), pool["mixed"].tolist()) == (["u1", "", ""], ["1", "two", ""])
    assert np.isnan(pool["count"]).tolist() == [True, True, False]
    assert pool["width"].tolist() == [640, 0, 0]
    assert "words" not in pool


def test_pictures_that_were_not_decoded_have_no_hashes(shelf: Shelves, tmp_path: Path) -> None:
    place = shelf("1", vector_rows("ab"), image=np.eye(2))
    made(place, tmp_path / "pool")
    pool, _ = open_pool(tmp_path / "pool")
    assert not {"sha256", "phash", "text"} & set(pool.columns)
    assert np.isnan(pool["pair_cosine"]).all()
    digest = "ab" * 32
    place = shelf("1", vector_rows("ab", sha256=digest), folder="known", image=np.eye(2))
    made(place, tmp_path / "known_pool")
    assert open_pool(tmp_path / "known_pool")[0]["sha256"].tolist() == [digest, digest]


# vectors that exist


def test_vectors_that_exist_are_referred_to_and_unusable_ones_rejected(shelf: Shelves, tmp_path: Path) -> None:
    image = np.array([[3, 4], [np.nan, 1], [0, 0], [np.inf, 1], [0, 5], [1, 0]], np.float16)
    text = np.array([[3, 4], [1, 0], [1, 0], [1, 0], [np.nan, 0], [np.inf, 1]], np.float16)
    place = shelf("1", vector_rows("abcdef"), image=image, text=text)
    made(place, tmp_path / "pool")
    pool, rejected = open_pool(tmp_path / "pool")
    assert {item.id: (item.reason, item.detail) for item in rejected} == {
        "b": ("no_vector", "NaN or infinite numbers"),
        "c": ("no_vector", "the vector is zero"),
        "d": ("no_vector", "NaN or infinite numbers"),
    }
    np.testing.assert_allclose(pool["image"].read(), [[0.6, 0.8], [0, 1], [1, 0]], atol=1e-3)
    assert np.isnan(pool["text"].read()).all(axis=1).tolist() == [False, True, True]
    np.testing.assert_allclose(pool["pair_cosine"], [1, np.nan, np.nan], atol=1e-3)
    assert not list((tmp_path / "pool").rglob("image.npy"))  # nothing is copied


def test_vectors_are_found_by_their_row_numbers(shelf: Shelves, tmp_path: Path) -> None:
    rows = [*vector_rows("ab"), {"caption": "no id"}, *vector_rows("cd")]
    place = shelf("1", rows, image=np.eye(4), image_rows=np.array([3, 2, 9, -1, 0]))
    made(place, tmp_path / "pool", part_rows=2)
    pool, rejected = open_pool(tmp_path / "pool")
    assert pool["id"].tolist() == ["a", "b", "d"]
    assert pool["image"].read().argmax(axis=1).tolist() == [3, 2, 0]
    assert [(item.id, item.reason, item.detail) for item in rejected] == [
        ("1:2", "no_id", ""),
        ("c", "no_vector", "the source has none"),
    ]


def test_vectors_that_change_in_their_place_are_looked_at_again(shelf: Shelves, tmp_path: Path) -> None:
    place = shelf("1", vector_rows("ab"), image=np.eye(2))
    made(place, tmp_path / "pool")
    shelf("1", vector_rows("ab"), image=np.array([[0.0, 0, 0], [1, 0, 0]]))
    made(place, tmp_path / "pool")
    pool, rejected = open_pool(tmp_path / "pool")
    assert (pool["id"].tolist(), rejected[0].detail) == (["b"], "the vector is zero")


def test_vectors_of_two_lengths_are_a_clear_error(shelf: Shelves, tmp_path: Path) -> None:
    shelf("1", vector_rows("ab"), image=np.eye(2))
    place = shelf("2", vector_rows("cd"), image=np.eye(3)[:2])
    made(place, tmp_path / "pool")
    with pytest.raises(UserError, match="`image` vectors of 2 and 3 numbers in one pool"):
        open_pool(tmp_path / "pool")


def test_without_vectors_an_embedder_is_asked_for(shelf: Shelves, tmp_path: Path) -> None:
    place = shelf("1", pictures(tmp_path / "shelf", 2))
    with pytest.raises(UserError, match="it has no vectors, and no embedder is named"):
        made(place, tmp_path / "pool")


# accidents


def test_a_corrupt_shard_is_told_and_the_others_go_on(shelf: Shelves, tmp_path: Path) -> None:
    shelf("1", vector_rows("ab"), image=np.eye(2))
    shelf("2", vector_rows("cd"), image=np.eye(2))
    shelf("3", vector_rows("ef"), image=np.eye(2))
    place = shelf("4", vector_rows("gh"), image=np.eye(2))
    (place / "1.jsonl").write_text('{"id": "a", "caption": "whole"}\n{"id": "b", "capt')
    (place / "2.image.npy").write_bytes(b"torn")
    (place / "3.jsonl").unlink()
    (place / "3.jsonl").symlink_to("gone")
    made(place, tmp_path / "pool")
    pool, rejected = open_pool(tmp_path / "pool")
    assert pool["id"].tolist() == ["a", "g", "h"]
    assert [item.reason for item in rejected] == ["unreadable_shard"] * 3
    assert [Path(item.where).name for item in rejected] == ["1.jsonl", "2.jsonl", "3.jsonl"]


def test_if_no_shard_can_be_read_nothing_is_made(shelf: Shelves, tmp_path: Path) -> None:
    place = shelf("1", vector_rows("ab"), image=np.eye(2))
    shelf("2", vector_rows("ab"), image=np.eye(2))
    for name in "12":
        (place / f"{name}.jsonl").write_text("nonsense")
    with pytest.raises(UserError, match="nothing could be read: Expecting value"):
        made(place, tmp_path / "pool")


def test_a_source_without_a_usable_row_is_a_clear_error(shelf: Shelves, tmp_path: Path) -> None:
    place = shelf("1", [{"caption": "no id"}], image=np.eye(1))
    with pytest.raises(UserError, match=r"no usable sample, all rejected: \{'no_id': 1\}, first .*1\.jsonl"):
        made(place, tmp_path / "pool")


def test_a_folder_without_a_finished_pool_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished pool there"):
        open_pool(tmp_path)
    (tmp_path / "pool.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        open_pool(tmp_path)


# the same bytes


def test_the_engine_and_the_size_of_the_shards_do_not_show(shelf: Shelves, tmp_path: Path) -> None:
    rows = pictures(tmp_path / "shelf", 12)
    pictures(tmp_path / "small", 12)
    place = shelf("all", rows)
    small = tmp_path / "small"
    for start in range(0, 12, 3):
        shelf(str(start), rows[start : start + 3], folder="small")
    made(place, tmp_path / "a", COLOURS, part_rows=5)
    made(place, tmp_path / "b", COLOURS, part_rows=5, engine=LocalEngine(workers=2))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    made(small, tmp_path / "c", COLOURS)
    one, other = (open_pool(tmp_path / name)[0] for name in "ac")
    for name in ("id", "caption", "sha256", "phash", "image", "pair_cosine"):
        np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]))


def test_a_run_that_is_finished_reads_nothing_again(shelf: Shelves, tmp_path: Path) -> None:
    place = shelf("all", pictures(tmp_path / "shelf", 4))
    made(place, tmp_path / "pool", COLOURS)
    before = contents(tmp_path / "pool")

    class Idle:
        def run(self, name: str, tasks: Sequence[Any]) -> None:
            raise AssertionError(name)

    made(place, tmp_path / "pool", COLOURS, engine=Idle())
    assert contents(tmp_path / "pool") == before


KILLED = """
import os, signal, sys
from pathlib import Path

from bunny.curate.engines import LocalEngine
from bunny.pipeline import pool_tasks
from tests.curate.test_pool import COLOURS, contents, made

place, base = Path(sys.argv[1]), Path(sys.argv[2])
made(place, base / "whole", COLOURS, part_rows=4)
whole = contents(base / "whole")
deaths = 0
for first in range(0, 10_000, 11):  # the first process dies at this event, a second one soon after
    output = base / str(first)
    for last in (first, 40):
        child = os.fork()
        if child == 0:
            seen = 0

            def watch(event, _):
                global seen
                if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open"):
                    seen += 1
                    if seen > last:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(watch)
            made(place, output, COLOURS, part_rows=4)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        deaths += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):
            break
    made(place, output, COLOURS, part_rows=4)
    assert contents(output) == whole, first
    if last == first:
        assert status == 0, status
        break
print(deaths)
"""


def test_killed_at_any_file_it_touches_it_ends_with_the_same_bytes(shelf: Shelves, tmp_path: Path) -> None:
    rows = pictures(tmp_path / "shelf", 10)
    shelf("1", rows[:6])
    place = shelf("2", rows[6:])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path)), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(place), str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 20
