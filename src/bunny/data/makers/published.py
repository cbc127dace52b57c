"""The published data sets of Bunny as a stage's rows: `{use: published, name: bunny-695k}`.

In: a name of `data/published` and the folder that holds its files. Out: its conversations in the order of its file, or
of its parts one after the other where the released file is not there. Which pictures are missing is told by
`bunny data check`; here a row without its picture is rejected like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import Rejected, Sample
from bunny.data.makers._stored import Stored
from bunny.data.published_sets import PublishedSet, data_root, published
from bunny.data.sources.llava_json import LlavaJson

ANY_LENGTH = 1 << 30
"""Characters of a turn: the original has no limit, `max_length` cuts long rows when they are trained on."""


class Published(Stored):
    """`{use: published, name: bunny-695k, root: data}`; `bunny data list` shows the names."""

    name: str  # a file name of data/published
    root: str | None = None  # folder with pretrain/ and finetune/; default: $BUNNY_DATA, else data/ beside the recipe
    folder: Path | None = None  # the recipe's folder, supplied by the program; default: the working folder

    def read(self) -> Iterator[Sample | Rejected]:
        """Every row of the set. Raises UserError for an unknown name or a missing file, with what to download."""
        chosen = published(self.name)
        root = data_root(self.root, self.folder)
        paths = files_of(chosen, root)
        return LlavaFiles(
            path=self.name, paths=paths, images=str(root / chosen.images), max_caption_chars=ANY_LENGTH
        ).read()

    def inputs(self) -> list[Path]:
        root = data_root(self.root, self.folder)
        return [root / file.path for file in published(self.name).choice(root)[0]]

    def check(self) -> None:
        files_of(published(self.name), data_root(self.root, self.folder))


class LlavaFiles(LlavaJson):
    """Several files of LLaVA JSON as one source: ids are unique over all of them."""

    paths: tuple[Path, ...]

    def files(self, suffixes: Iterable[str]) -> list[Path]:
        return list(self.paths)


def files_of(chosen: PublishedSet, root: Path) -> tuple[Path, ...]:
    """The JSON files to read. Raises UserError that names the missing ones and what to download."""
    files, from_parts = chosen.choice(root)
    absent = [file for file in files if not (root / file.path).is_file()]
    if absent:
        what = f"{chosen.title}: no {', '.join(str(root / file.path) for file in absent)}"
        check = f"`bunny data check {chosen.name} --root {root}` tells the rest"
        raise UserError(what, fix=f"{'; '.join(chosen.wanted(file, root) for file in absent)}; {check}")
    if from_parts:
        log.info("%s: put together from its parts %s", chosen.title, ", ".join(chosen.parts))
    return tuple(root / file.path for file in files)


USE = Published
