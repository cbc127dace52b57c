"""Embedding in parts: resumable, and nothing is lost without a word."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import Embedded, ImageRef, Pool, Rejected, Sample
from bunny.curate.phash import phash
from bunny.curate.pool import PoolFolder
from bunny.curate.vectors import embed_pool

from .conftest import ColourEmbedder, Gallery

Opener = Callable[[ImageRef], Image.Image]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bunny.curate.vectors.PICTURE_ROWS", 10)
    monkeypatch.setattr("bunny.curate.part_making.OPEN_ROWS", 4)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a pool folder, without the times in them."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, data in found.items():
        if name.endswith("part.json"):
            found[name] = re.sub(rb'"seconds": [^}]*', b"", data)
    return found


def embedded(samples: list[Sample], embedder: ColourEmbedder, folder: Path, opener: Opener) -> tuple[Pool, PoolFolder]:
    made = embed_pool(samples, [], embedder, folder, open_image=opener)
    return made.pool(), made


def test_every_sample_is_embedded_or_listed_with_a_reason(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    textless = Sample("t0", (), samples[0].turns)
    pool, made = embedded([*samples, samples[3], textless], embedder, tmp_path, opener)
    rejected = made.rejected()
    assert len(pool) + len(rejected) == len(samples) + 2
    assert {item.id: item.reason for item in rejected} == {
        "s03": "duplicate_id",
        "t0": "no_picture",
        "s31": "no_vector",
        "s32": "unreadable_picture",
    }
    ids = pool["id"].tolist()
    assert ids == sorted(ids)
    np.testing.assert_allclose(np.linalg.norm(pool["image"].read(), axis=1), 1, atol=1e-6)
    assert made.samples(np.arange(len(pool))) == sorted(
        [sample for sample in samples if sample.id not in ("s31", "s32")], key=lambda sample: sample.id
    )


def test_rows_the_source_could_not_read_are_listed_with_the_rest(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    unread = Rejected("s99", "pool.parquet:7", "damaged", "cut short")
    assert unread in embed_pool(samples[:3], [unread], embedder, tmp_path / "a", open_image=opener).rejected()
    assert embed_pool([], [unread], embedder, tmp_path / "b", open_image=opener).rejected() == (unread,)


def test_a_caption_of_ten_megabytes_is_rejected(
    gallery: Gallery, embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    huge = gallery.add("huge", (9, 0, 0), "red " * 2_500_000)
    pool, made = embedded([huge, gallery.add("red", (9, 0, 0), "red")], embedder, tmp_path, opener)
    assert pool["id"].tolist() == ["red"]
    (told,) = made.rejected()
    assert (told.id, told.reason) == ("huge", "caption_too_long")
    assert told.detail == "10000000 characters, the limit is 1000000"


def test_a_second_run_makes_nothing_again(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    embedded(samples, embedder, tmp_path, opener)
    seen, before = embedder.seen, contents(tmp_path)
    embedded(samples[::-1], embedder, tmp_path, opener)
    assert embedder.seen == seen
    assert contents(tmp_path) == before


def test_a_longer_pool_keeps_the_parts_it_had(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    embedded(samples[:25], embedder, tmp_path, opener)
    assert embedder.seen == 25
    embedded(samples, embedder, tmp_path, opener)
    assert embedder.seen == 25 + len(samples) - 20 - 1  # one picture cannot be opened


def test_a_killed_run_goes_on_and_ends_the_same(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    class Killed(ColourEmbedder):
        def embed(self, pictures: list[np.ndarray], texts: list[str]) -> Embedded:
            if self.seen >= 16:
                raise KeyboardInterrupt
            return super().embed(pictures, texts)

    with pytest.raises(KeyboardInterrupt):
        embedded(samples, Killed(), tmp_path / "a", opener)
    assert len(list((tmp_path / "a").glob("part-*"))) == 1
    embedded(samples, embedder, tmp_path / "a", opener)
    assert embedder.seen == len(samples) - 10 - 1  # the first part is there; one picture cannot be opened
    embedded(samples, ColourEmbedder(), tmp_path / "b", opener)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("file", ["samples.parquet", "facts.arrow", "image.npy", "text.npy", "part.json"])
@pytest.mark.parametrize("damage", [b"", b"ARROW1 torn", b"\x93NUMPY nonsense"])
def test_a_damaged_part_is_made_again(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path, file: str, damage: bytes
) -> None:
    _, made = embedded(samples, embedder, tmp_path, opener)
    before = contents(tmp_path)
    (made.parts[1] / file).write_bytes(damage)
    embedded(samples, embedder, tmp_path, opener)
    assert contents(tmp_path) == before


def test_other_words_or_another_model_are_embedded_anew(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    embedded(samples[:5], embedder, tmp_path, opener)
    changed = Sample.pair("s00", samples[0].images[0], "a green square")
    embedded([changed, *samples[1:5]], embedder, tmp_path, opener)
    assert embedder.seen == 10
    embedder.name = "colours, version 2"
    embedded([changed, *samples[1:5]], embedder, tmp_path, opener)
    assert embedder.seen == 15
    assert len(list(tmp_path.glob("part-*"))) == 1  # parts of earlier pools go


def test_a_picture_that_changes_in_its_place_is_embedded_anew(embedder: ColourEmbedder, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    sample = Sample.pair("a", ImageRef(str(path)), "red")
    for colour in ((200, 0, 0), (0, 0, 200)):
        Image.new("RGB", (8, 8 + colour[2]), colour).save(path)
        pool, _ = embedded([sample], embedder, tmp_path / "pool", lambda ref: Image.open(ref.path))
        np.testing.assert_allclose(pool["image"].read()[0], np.array(colour) / 200, atol=1e-3)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_unusable_vectors_are_rejected_and_do_not_spread(
    gallery: Gallery, samples: list[Sample], tmp_path: Path, broken: float
) -> None:
    class Broken(ColourEmbedder):
        def embed(self, pictures: list[np.ndarray], texts: list[str]) -> Embedded:
            found = super().embed(pictures, texts)
            found.image[0] = broken
            return found

    pool, made = embedded(samples[:8], Broken(), tmp_path, gallery.open)
    assert [item.id for item in made.rejected()] == ["s00", "s04"]
    assert np.isfinite(pool["image"].read()).all()


def test_a_picture_without_a_visual_vector_is_rejected_and_a_text_without_one_is_not(
    gallery: Gallery, samples: list[Sample], tmp_path: Path
) -> None:
    class Visual(ColourEmbedder):
        def embed(self, pictures: list[np.ndarray], texts: list[str]) -> Embedded:
            found = super().embed(pictures, texts)
            visual = found.image.repeat(2, axis=1)
            visual[2], found.text[3] = 0, np.nan
            return Embedded(found.image, found.text, visual)

    pool, made = embedded(samples[:4], Visual(), tmp_path, gallery.open)
    assert [item.id for item in made.rejected()] == ["s02"]
    assert pool["visual"].shape == (3, 6)
    assert np.isnan(pool["pair_cosine"]).tolist() == [False, False, True]


def test_an_empty_pool_gives_empty_columns(embedder: ColourEmbedder, opener: Opener, tmp_path: Path) -> None:
    pool, _ = embedded([], embedder, tmp_path, opener)
    assert len(pool) == 0
    assert [len(pool[name]) for name in ("id", "image", "visual", "sha256", "phash", "pair_cosine")] == [0] * 6
    assert len(pool["image"].read()) == 0


def test_the_pool_has_pixel_digests_hashes_sizes_and_likeness(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    pool, _ = embedded(samples, embedder, tmp_path, opener)
    rows = {str(id): row for row, id in enumerate(pool["id"])}
    assert pool["sha256"][rows["s00"]] == pool["sha256"][rows["s30"]] != pool["sha256"][rows["s01"]]
    assert (pool["width"] == 8).all()
    assert pool["phash"].dtype == np.uint64
    assert (pool["phash"] == phash(np.full((8, 8, 3), 77, np.uint8))).all()  # flat pictures have one hash
    assert pool["pair_cosine"][rows["s01"]] > 0.9
    assert pool["visual"] is pool["image"]  # the embedder has no vectors of its own for the picture alone
    likeness = (pool["image"].read() * pool["text"].read()).sum(axis=1)
    np.testing.assert_allclose(pool["pair_cosine"], likeness, atol=1e-6)


def test_large_pictures_are_shrunk_before_they_wait(gallery: Gallery, tmp_path: Path) -> None:
    shapes = []

    class Watching(ColourEmbedder):
        def embed(self, pictures: list[np.ndarray], texts: list[str]) -> Embedded:
            shapes.extend(picture.shape for picture in pictures)
            return super().embed(pictures, texts)

    sample = gallery.add("big", (9, 9, 9), "a red square", size=(3000, 1500))
    pool, _ = embedded([sample], Watching(), tmp_path, gallery.open)
    assert shapes == [(512, 1024, 3)]
    assert (pool["width"][0], pool["height"][0]) == (3000, 1500)


def test_a_full_disk_is_a_clear_error_and_finished_parts_stay(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], np.save

    def full(path: Path, array: np.ndarray) -> None:
        saved.append(path)
        if len(saved) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(path, array)

    told = pytest.raises(UserError, match=f"{tmp_path}.*No space left on device; make room")
    with monkeypatch.context() as patch, told:
        patch.setattr(np, "save", full)
        embedded(samples, embedder, tmp_path, opener)
    assert [path.name[:5] for path in tmp_path.iterdir() if path.name != ".index"] == ["part-"]  # and nothing half made
    embedder.seen = 0
    embedded(samples, embedder, tmp_path, opener)
    assert embedder.seen == len(samples) - 10 - 1
