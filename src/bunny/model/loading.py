"""What every load of a part has in common: whole or not at all, and errors in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bunny.core.errors import UserError


def nothing_lost(where: str, info: Mapping[str, Any]) -> None:
    """Raise UserError if transformers' loading info names a tensor that is missing, unread or of another shape."""
    for kind, keys in info.items():
        if keys and kind != "error_msgs":
            shown = ", ".join(map(str, sorted(keys)[:4]))
            raise UserError(f"{where}: {len(keys)} {kind.replace('_', ' ')}: {shown}")


@contextmanager
def reading(reference: str) -> Iterator[None]:
    """Turns transformers' "cannot find" errors into one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"cannot load {reference}: {first}", fix="give a folder, a hub name (with a network) or `bundled:NAME`"
        ) from error
