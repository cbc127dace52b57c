"""Captions as conversations: an instruction and the caption, or the bare pair that alignment learns from.

In: pairs. Out: one conversation a pair, `{id}/caption`; pairs without words or picture give none (they are logged).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bunny.core.log import log
from bunny.core.types import Sample
from bunny.data.makers._maker import Maker
from bunny.data.makers._prompts import ask

INSTRUCTIONS = (
    "Describe the image concisely.",
    "Provide a brief description of the given image.",
    "Offer a succinct explanation of the picture presented.",
    "Summarize the visual content of the image.",
    "Give a short and clear explanation of the subsequent image.",
    "Share a concise interpretation of the image provided.",
    "Present a compact description of the photo's key features.",
    "Relay a brief, clear account of the picture shown.",
    "Render a clear and concise summary of the photo.",
    "Write a terse but informative summary of the picture.",
    "Create a compact narrative representing the image presented.",
)
"""LLaVA's instructions for brief description (Liu et al. 2023, appendix)."""


class Captions(Maker):
    """`{use: captions}`; `{use: captions, plain: true}` for alignment."""

    plain: bool = False  # the user turn is the picture alone
    instructions: tuple[str, ...] = INSTRUCTIONS  # one is drawn for each pair

    def make(self, samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
        """One conversation for each pair that has a picture and words."""
        drawn = rng.integers(max(1, len(self.instructions)), size=len(samples)).tolist()
        without = 0
        for at, sample in enumerate(samples):
            if not sample.images or not sample.text.strip():
                without += 1
                continue
            question = "" if self.plain or not self.instructions else self.instructions[drawn[at]]
            yield ask(sample, f"{sample.id}/caption", question, sample.text, "captions")
        if without:
            log.warning("captions: %d of %d samples have no words or no picture", without, len(samples))


USE = Captions
