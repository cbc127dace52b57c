"""One file of arrays for a part of the work: whole or not at all, and noticed if it is damaged later."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bunny.core.log import log
from bunny.core.publishing import publish

Arrays = Mapping[str, npt.NDArray[Any]]


def write_arrays(path: Path, arrays: Arrays) -> None:
    """A `.npz` file, published by one rename. Raises UserError on a full disk."""
    with publish(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # its stub takes the arrays for `allow_pickle`


def read_arrays(path: Path, names: Sequence[str] = ()) -> Arrays | None:
    """Arrays of the file, default all; None if it is not there, or if it is torn: that is logged, and the file goes."""
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return {name: stored[name] for name in names or stored.files}  # checksums are compared as it is read
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        log.warning("%s: torn, made again (%s)", path.name, error)
        path.unlink()
        return None
