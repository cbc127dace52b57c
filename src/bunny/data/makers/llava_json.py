"""Conversations that exist already: an instruction set in LLaVA's JSON as one part of a stage's rows.

In: the files of `sources/llava_json.py`. Out: their conversations. Rows that cannot be used come from `read()` as
`Rejected`; `make` logs how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bunny.core.log import log
from bunny.core.types import Sample
from bunny.data.makers._maker import Maker
from bunny.data.sources.llava_json import LlavaJson


class StoredConversations(LlavaJson, Maker):
    """`{use: llava_json, path: bunny_695k.json, images: pictures/, weight: 0.5}`"""

    def make(self, samples: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
        """The file's conversations; `samples` and `rng` are not looked at."""
        rejected = 0
        for row in self.read():
            if isinstance(row, Sample):
                yield row
            else:
                rejected += 1
        if rejected:
            log.warning("%s: %d rows cannot be used", self.path, rejected)


USE = StoredConversations
