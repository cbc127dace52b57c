"""Several processes of one run (`torchrun`): all train, the first does everything else while the others wait.

In: RANK and WORLD_SIZE of the environment. Out: artifacts, made once; what every process needs to know travels from
the first to the others over gloo, which waits as long as it takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from bunny.core.store import Artifact, Store

Build = Callable[[Path], Mapping[str, Any] | None]


def rank() -> int:
    """This process's number; 0 does what only one may do."""
    return int(os.environ.get("RANK", "0"))


def ranks() -> int:
    """How many processes take part in the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class Together:
    """Processes that make the same artifacts in the same order."""

    def __init__(self) -> None:
        self._group: Any = None

    def make(self, store: Store | None, name: str, build: Build, *, all_take_part: bool, **key: Any) -> Artifact:
        """`Store.make` on the first process, whose result all get.

        store: the first process's; others have none. all_take_part: whether the others run `build` too, in the same
        folder, when the first does; else they wait.
        """
        if ranks() == 1:
            assert store
            return store.make(name, build, **key)
        if store:
            return self._lead(store, name, build, all_take_part, key)
        return self._follow(build)

    def wait(self) -> None:
        """Returns when all processes are here."""
        if ranks() > 1:
            import torch

            torch.distributed.barrier(group=self._meet())

    def _lead(self, store: Store, name: str, build: Build, all_take_part: bool, key: Mapping[str, Any]) -> Artifact:
        def begin(folder: Path) -> Mapping[str, Any] | None:
            if all_take_part:
                self._told({"work": str(folder)})
            return build(folder)

        made = store.make(name, begin, **key)
        self._told({"done": str(made.path)})
        return made

    def _follow(self, build: Build) -> Artifact:
        while True:
            word = self._told(None)
            if "done" in word:
                return Artifact.load(Path(word["done"]))
            build(Path(word["work"]))

    def _told(self, word: dict[str, str] | None) -> dict[str, str]:
        """What the first process says."""
        import torch

        words = [word]
        torch.distributed.broadcast_object_list(words, src=0, group=self._meet())
        assert words[0] is not None
        return words[0]

    def _meet(self) -> Any:
        if self._group is None:
            import accelerate
            import torch

            from bunny.train.parallel import PATIENCE

            patience = timedelta(seconds=PATIENCE)
            accelerate.PartialState(cpu=not torch.accelerator.is_available(), timeout=patience)
            self._group = torch.distributed.new_group(backend="gloo", timeout=patience)
        return self._group
