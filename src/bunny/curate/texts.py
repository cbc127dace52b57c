"""Columns of strings, block by block: any text column (`Texts`, numpy) in, Arrow blocks, digests and groups out.

Nothing here keeps a Python object per row: 10 million captions cost 16 bytes each.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.types import IntArray
from bunny.curate.columns import BLOCK

Digests = npt.NDArray[np.uint64]


def blocks(texts: Any) -> Iterator[tuple[int, list[str]]]:
    """(first row, strings) of consecutive blocks; what is missing is an empty string."""
    for start in range(0, len(texts), BLOCK):
        some = texts[start : start + BLOCK].tolist()
        yield start, ["" if text is None or text != text else str(text) for text in some]


def arrow(texts: list[str]) -> Any:
    """An Arrow array of one block. Half of a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    import pyarrow as pa

    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array([text.encode("utf-8", "replace").decode() for text in texts], pa.string())


def plain(text: str) -> str:
    """A text without what does not count as a difference: Unicode form (NFKC), upper and lower case, white space.

    >>> plain("  ＣＡＴ\\n on  Mats")
    'cat on mats'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def digests(texts: Any, form: Callable[[str], str] = str) -> Digests:
    """(N, 2) uint64: 128-bit BLAKE2 of every text as `form` gives it; zero for an empty one."""
    found = np.zeros((len(texts), 2), np.uint64)
    for start, some in blocks(texts):
        for row, text in enumerate(map(form, some), start):
            if text:
                digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
                found[row] = np.frombuffer(digest, np.uint64)
    return found


def first_equal(keys: Digests) -> IntArray:
    """(N,) int64: the first row with the same digest, for every row."""
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))
    some = keys[order]
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = (some[1:] != some[:-1]).any(axis=1)
    first = np.empty(len(keys), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(fresh, np.arange(len(keys)), 0))]
    return first


def labels(values: Any, form: Callable[[str], str] = str) -> IntArray:
    """(N,) int64: rows with equal values have equal labels, 0, 1, 2 … in the order in which values first appear.

    values: a column of numbers, or of strings, compared as `form` gives them. Missing numbers (NaN) are equal to each
    other, and so are empty strings.
    """
    numbers = getattr(values, "dtype", None)
    if numbers is not None and numbers.kind in "iufb":
        _, once, inverse = np.unique(np.asarray(values), return_index=True, return_inverse=True)
        first: IntArray = once[inverse.reshape(-1)]
    else:
        first = first_equal(digests(values, form))
    found: IntArray = (np.cumsum(first == np.arange(len(first))) - 1)[first]
    return found
