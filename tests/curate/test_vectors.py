"""Embedding in parts: resumable, and nothing is lost without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bunny.core.types import Embedded, ImageRef, Sample
from bunny.curate.vectors import Embedding, build_pool, embed_pool

from .conftest import ColourEmbedder, Gallery

Opener = Callable[[ImageRef], Image.Image]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bunny.curate.vectors.PART_ROWS", 10)
    monkeypatch.setattr("bunny.curate.vectors.OPEN_ROWS", 4)


def same(one: Embedding, other: Embedding) -> bool:
    arrays = all(
        np.array_equal(a, b)
        for a, b in (
            (one.vectors.ids, other.vectors.ids),
            (one.vectors.image, other.vectors.image),
            (one.sha256, other.sha256),
            (one.width, other.width),
        )
    )
    return arrays and one.samples == other.samples and one.rejected == other.rejected


def test_every_sample_is_embedded_or_listed_with_a_reason(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    textless = Sample("t0", (), samples[0].turns)
    found = embed_pool([*samples, samples[3], textless], embedder, tmp_path, open_image=opener)
    assert len(found.samples) + len(found.rejected) == len(samples) + 2
    assert {item.id: item.reason for item in found.rejected} == {
        "s03": "duplicate_id",
        "t0": "no_picture",
        "s31": "no_vector",
        "s32": "unreadable_picture",
    }
    assert found.vectors.ids.tolist() == sorted(found.vectors.ids.tolist())
    np.testing.assert_allclose(np.linalg.norm(found.vectors.image.astype(float), axis=1), 1, atol=1e-3)


def test_a_second_run_makes_nothing_again(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    first = embed_pool(samples, embedder, tmp_path, open_image=opener)
    seen = embedder.seen
    assert same(first, embed_pool(samples[::-1], embedder, tmp_path, open_image=opener))
    assert embedder.seen == seen


def test_a_killed_run_goes_on_and_ends_the_same(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    class Killed(ColourEmbedder):
        def embed(self, pictures: list[np.ndarray], texts: list[str]) -> Embedded:
            if self.seen >= 16:
                raise KeyboardInterrupt
            return super().embed(pictures, texts)

    with pytest.raises(KeyboardInterrupt):
        embed_pool(samples, Killed(), tmp_path / "a", open_image=opener)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["part-00000.npz"]
    resumed = embed_pool(samples, embedder, tmp_path / "a", open_image=opener)
    assert embedder.seen == len(samples) - 10 - 1  # the first part is there; one picture cannot be opened
    assert same(resumed, embed_pool(samples, ColourEmbedder(), tmp_path / "b", open_image=opener))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn", b"\x93NUMPY nonsense"])
def test_a_damaged_part_is_made_again(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path, damage: bytes
) -> None:
    first = embed_pool(samples, embedder, tmp_path, open_image=opener)
    (tmp_path / "part-00001.npz").write_bytes(damage)
    assert same(first, embed_pool(samples, embedder, tmp_path, open_image=opener))


def test_other_words_or_another_model_are_embedded_anew(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    embed_pool(samples[:5], embedder, tmp_path, open_image=opener)
    changed = Sample.pair("s00", samples[0].images[0], "a green square")
    embed_pool([changed, *samples[1:5]], embedder, tmp_path, open_image=opener)
    assert embedder.seen == 10
    embedder.name = "colours, version 2"
    embed_pool([changed, *samples[1:5]], embedder, tmp_path, open_image=opener)
    assert embedder.seen == 15


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_unusable_vectors_are_rejected_and_do_not_spread(
    gallery: Gallery, samples: list[Sample], tmp_path: Path, broken: float
) -> None:
    class Broken(ColourEmbedder):
        def embed(self, pictures: list[np.ndarray], texts: list[str]) -> Embedded:
            found = super().embed(pictures, texts)
            found.image[0] = broken
            return found

    found = embed_pool(samples[:8], Broken(), tmp_path, open_image=gallery.open)
    assert [item.id for item in found.rejected] == ["s00", "s04"]
    assert np.isfinite(found.vectors.image.astype(float)).all()


def test_a_picture_without_a_visual_vector_is_rejected_and_a_text_without_one_is_not(
    gallery: Gallery, samples: list[Sample], tmp_path: Path
) -> None:
    class Visual(ColourEmbedder):
        def embed(self, pictures: list[np.ndarray], texts: list[str]) -> Embedded:
            found = super().embed(pictures, texts)
            visual = found.image.repeat(2, axis=1)
            visual[2], found.text[3] = 0, np.nan
            return Embedded(found.image, found.text, visual)

    found = embed_pool(samples[:4], Visual(), tmp_path, open_image=gallery.open)
    assert [item.id for item in found.rejected] == ["s02"]
    pool = build_pool(found)
    assert pool["visual"].shape == (3, 6)
    assert np.isnan(pool["pair_cosine"]).tolist() == [False, False, True]


def test_an_empty_pool_gives_an_empty_embedding(embedder: ColourEmbedder, opener: Opener, tmp_path: Path) -> None:
    pool = build_pool(embed_pool([], embedder, tmp_path, open_image=opener))
    assert len(pool) == 0
    assert pool["image"].shape == (0, 3)


def test_the_pool_has_pixel_digests_sizes_and_likeness(
    samples: list[Sample], embedder: ColourEmbedder, opener: Opener, tmp_path: Path
) -> None:
    pool = build_pool(embed_pool(samples, embedder, tmp_path, open_image=opener))
    rows = {str(id): row for row, id in enumerate(pool["id"])}
    assert pool["sha256"][rows["s00"]] == pool["sha256"][rows["s30"]] != pool["sha256"][rows["s01"]]
    assert (pool["width"] == 8).all()
    assert pool["pair_cosine"][rows["s01"]] > 0.9
    assert pool["visual"] is pool["image"]  # the embedder has no vectors of its own for the picture alone
    np.testing.assert_allclose(
        pool["pair_cosine"], (pool["image"] * pool["text"]).sum(axis=1), atol=1e-6, equal_nan=True
    )


def test_large_pictures_are_shrunk_before_they_wait(gallery: Gallery, tmp_path: Path) -> None:
    shapes = []

    class Watching(ColourEmbedder):
        def embed(self, pictures: list[np.ndarray], texts: list[str]) -> Embedded:
            shapes.extend(picture.shape for picture in pictures)
            return super().embed(pictures, texts)

    sample = gallery.add("big", (9, 9, 9), "a red square", size=(3000, 1500))
    found = embed_pool([sample], Watching(), tmp_path, open_image=gallery.open)
    assert shapes == [(512, 1024, 3)]
    assert (found.width[0], found.height[0]) == (3000, 1500)
