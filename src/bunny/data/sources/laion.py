"""LAION's embeddings with their metadata: clip-retrieval's layout, with LAION's columns.

In: `img_emb_0000.npy` (`text_emb_0000.npy`) and `metadata_0000.parquet` with image_path, caption, NSFW, similarity,
LICENSE, url, key …; the first releases write them in capitals (URL, TEXT, WIDTH, SAMPLE_ID). Out: as for
clip_retrieval; LAION's columns have the names that the steps of the curation know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bunny.data.sources.clip_retrieval import ClipRetrieval

NAMES = {
    "similarity": "clip_score",
    "NSFW": "nsfw",
    "LICENSE": "licence",
    "URL": "url",
    "TEXT": "caption",
    "WIDTH": "width",
    "HEIGHT": "height",
    "LANGUAGE": "language",
    "AESTHETIC_SCORE": "aesthetic",
    "aesthetic_score": "aesthetic",
}
"""LAION's column -> name in the samples' meta."""


class Laion(ClipRetrieval):
    """`{use: laion, path: laion2B-en/}`"""

    def renamed(self) -> Mapping[str, str]:
        return NAMES

    def key_columns(self) -> Sequence[str]:
        return ("key", "image_path", "SAMPLE_ID")


USE = Laion
