"""Named randomness: every random choice draws from its own stream, so adding one never moves another."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(name: str, seed: int) -> np.random.Generator:
    """A generator for one purpose, e.g. `stream("curate.sample", recipe.seed)`; same name and seed, same numbers."""
    digest = hashlib.sha256(f"{name}\0{seed}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
