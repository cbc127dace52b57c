"""What the heavy tasks share: arrays in files, whole or not at all, and blocks of rows spread over threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bunny.core.publishing import publish
from bunny.core.types import Place, Pool

Item = TypeVar("Item")


@contextmanager
def place_of(pool: Pool) -> Iterator[Place]:
    """Where the pool's heavy steps work; a pool without a place gets a folder that goes away afterwards."""
    if pool.place is not None:
        yield pool.place
        return
    from bunny.curate.engines import LocalEngine

    with TemporaryDirectory(prefix="bunny-") as folder:
        yield Place(Path(folder), LocalEngine())


def write_text(path: Path, text: str) -> None:
    """A text file."""
    with publish(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_array(path: Path, values: npt.NDArray[Any]) -> None:
    """A `.npy` file."""
    with publish(path) as temporary:
        np.save(temporary, values)


def write_arrays(path: Path, values: Mapping[str, Any]) -> None:
    """A `.npz` file."""
    with publish(path) as temporary:
        np.savez(temporary, **values)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of a `.npz` file."""
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def in_threads(function: Callable[[Item], Any], items: Iterable[Item]) -> None:
    """Call the function on every item, on as many threads as torch may use; the products inside then use one each.

    The function's outcome must not depend on the order. Raises what the first failing call raised.
    """
    import torch

    threads = torch.get_num_threads()
    if threads == 1:
        for item in items:
            function(item)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as crew:
            for _ in crew.map(function, items):
                pass
    finally:
        torch.set_num_threads(threads)
