"""The published data sets of Bunny, one file of facts each: what to download, where it lies, how many rows it has.

In: a name, a root folder. Out: `PublishedSet`, and the JSON files on disk that are the set: its released file, or the
files of its parts where that is missing. What could not be verified is called unknown in the file, with no source.
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from pydantic import Field

from bunny.core.errors import UserError, nearest
from bunny.core.recipe import Section, check

ROOT_VARIABLE = "BUNNY_DATA"
DEFAULT_ROOT = "data"


class DataFile(Section):
    """A JSON file of LLaVA's form."""

    path: str  # inside the root folder
    rows: int = Field(gt=0, description="rows it should have")
    within: float = Field(ge=0, lt=1, description="share by which the count may differ; 0 where it is known exactly")
    size: str  # as its page says
    make: str = ""  # a command that makes it where it cannot be downloaded

    @property
    def rows_text(self) -> str:
        return f"{self.rows:,}" if self.within == 0 else f"about {self.rows:,}"

    def fits(self, rows: int) -> bool:
        """Whether so many rows are what is expected."""
        return abs(rows - self.rows) <= self.within * self.rows


class Folder(Section):
    """A folder of pictures below `images`."""

    path: str
    download: str  # where its pictures come from


class Fact(Section):
    """One thing said in the file, and the page that says it."""

    fact: str
    source: str


class PublishedSet(Section):
    """A published data set. `parts` are other sets that together are this one."""

    name: str
    title: str
    about: str
    hub: str  # repository on the Hugging Face hub
    files: tuple[DataFile, ...]
    images: str  # folder that picture paths start from, inside the root folder
    archives: str
    pictures: int | None = None
    folders: tuple[Folder, ...] = ()
    parts: tuple[str, ...] = ()
    licence: str
    facts: tuple[Fact, ...]

    @property
    def url(self) -> str:
        return f"https://huggingface.co/datasets/{self.hub}"

    @property
    def rows(self) -> int:
        """Rows that all its files should have together."""
        return sum(file.rows for file in self.files)

    @property
    def rows_text(self) -> str:
        about = "" if all(file.within == 0 for file in self.files) else "about "
        return f"{about}{self.rows:,}"

    def all_folders(self) -> tuple[Folder, ...]:
        """Its picture folders and those of its parts, each once."""
        parts = [folder for name in self.parts for folder in published(name).all_folders()]
        return tuple({folder.path: folder for folder in (*self.folders, *parts)}.values())

    def choice(self, root: Path) -> tuple[tuple[DataFile, ...], bool]:
        """The files that are read as this set, and whether they are those of its parts.

        The parts stand for the released file only where that is missing and they are complete.
        """
        if self.parts and not _all_there(self.files, root):
            parts = tuple(file for name in self.parts for file in published(name).choice(root)[0])
            if _all_there(parts, root):
                return parts, True
        return self.files, False

    def missing(self, root: Path) -> list[str]:
        """What to download or make so that the set can be read, one line each; empty if its files are there."""
        chosen, _ = self.choice(root)
        lines = [self.wanted(file, root) for file in chosen if not (root / file.path).is_file()]
        if lines and self.parts:
            others = [line for name in self.parts for line in published(name).missing(root)]
            lines += [f"or its parts instead: {line}" for line in others]
        return lines

    def wanted(self, file: DataFile, root: Path) -> str:
        """How one of its files comes to its place."""
        make = f", or make it: {file.make}" if file.make else ""
        return f"download {Path(file.path).name} (size: {file.size}) from {self.url} to {root / file.path}{make}"


def published_names() -> list[str]:
    """The names of all sets, sorted."""
    return sorted(path.stem for path in facts_folder().glob("*.yaml"))


def published(name: str) -> PublishedSet:
    """The set of that name. Raises UserError that names the nearest one."""
    known = published_names()
    if name not in known:
        raise UserError(f"no published data set is called `{name}`", fix=nearest(name, known))
    text = (facts_folder() / f"{name}.yaml").read_text("utf-8")
    return check(PublishedSet, {"name": name, **yaml.safe_load(text)}, f"published/{name}.yaml")


def facts_folder() -> Path:
    """Where the files of facts lie."""
    return Path(__file__).parent / "published"


def data_root(given: str | Path | None, folder: Path | None = None) -> Path:
    """The folder that holds pretrain/ and finetune/: the given one, else $BUNNY_DATA, else `data`.

    folder: where relative paths start (a recipe's folder); $BUNNY_DATA starts at the working folder.
    """
    if given is None and (variable := os.environ.get(ROOT_VARIABLE)):
        return Path(variable).expanduser()
    return (folder or Path()) / Path(given if given is not None else DEFAULT_ROOT).expanduser()


def _all_there(files: tuple[DataFile, ...], root: Path) -> bool:
    return all((root / file.path).is_file() for file in files)
