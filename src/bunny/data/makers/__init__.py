"""One file per way to make training conversations: `{use: captions, plain: true}` is `captions.py`.

Each is a `Maker` with `make(samples, rng) -> Iterator[Sample]`: curated pairs in, conversations out, in the order of
the pairs. Conversations about one picture share its `ImageRef`, so that training encodes it once.
"""

from bunny.data.makers._maker import Maker

__all__ = ["Maker"]
