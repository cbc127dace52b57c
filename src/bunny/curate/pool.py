"""An `Embedding` in, the `Pool` that the steps look at out."""

from __future__ import annotations

import numpy as np

from bunny.core.types import FloatArray, Pool
from bunny.curate.vectors import Embedding


def build_pool(embedding: Embedding) -> Pool:
    """The pool of all embedded samples, rows in order of their ids.

    Columns: id, source, caption (N,) str; sha256 (N,) str; width, height (N,) int32; image, text (N, D) and visual
    (N, V) float32 unit rows (`visual` is `image` where the embedder has no vectors of its own for it); pair_cosine
    (N,) float32, NaN where there is no text.
    """
    vectors = embedding.vectors
    image = _unit(vectors.image)
    text = np.full_like(image, np.nan) if vectors.text is None else _unit(vectors.text)
    return Pool(
        {
            "id": vectors.ids,
            "source": np.array([sample.source for sample in embedding.samples], dtype=object),
            "caption": np.array([sample.text for sample in embedding.samples], dtype=object),
            "sha256": embedding.sha256,
            "width": embedding.width,
            "height": embedding.height,
            "image": image,
            "text": text,
            "visual": image if vectors.visual is None else _unit(vectors.visual),
            "pair_cosine": np.einsum("nd,nd->n", image, text),
        }
    )


def _unit(vectors: FloatArray) -> FloatArray:
    """float32 rows of length one again after their stay in float16; NaN rows stay NaN."""
    wide = np.asarray(vectors, dtype=np.float32)
    unit: FloatArray = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
