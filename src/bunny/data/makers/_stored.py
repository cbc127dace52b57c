"""Conversations that are on disk already: what makers that read them share.

In: rows as they are read. Out: the usable ones; how many are not is logged. `read()` says which, and why.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from bunny.core.log import log
from bunny.core.types import Rejected, Sample
from bunny.data.makers._maker import Maker


class Stored(Maker):
    """A maker whose conversations exist: it reads them, and looks at neither pairs nor random numbers."""

    @abstractmethod
    def read(self) -> Iterator[Sample | Rejected]:
        """A conversation, or the reason why there is none, for every row."""

    def make(self, samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
        """The usable conversations; `samples` and `rng` are not looked at."""
        rejected = 0
        for row in self.read():
            if isinstance(row, Sample):
                yield row
            else:
                rejected += 1
        if rejected:
            log.warning("%s: %d rows cannot be used", type(self).__name__, rejected)
