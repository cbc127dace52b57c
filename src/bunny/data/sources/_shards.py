"""Files that belong together: their numbers, the numbers that are missing, and the short names that ids use.

In: paths. Out: numbers, warnings, names. Opens no file.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bunny.core.log import log

_NUMBERED = re.compile(r"^(?P<head>.*?)(?P<number>\d{1,18})(?:-of-(?P<total>\d{1,9}))?(?P<tail>\D*)$")


def number_of(path: Path) -> int | None:
    """The shard number that a file's name ends with; None where there is none.

    >>> number_of(Path("img_emb_0012.npy")), number_of(Path("train-00003-of-00010.parquet"))
    (12, 3)
    """
    found = _NUMBERED.match(path.stem)
    return int(found["number"]) if found else None


def missing_numbers(paths: Sequence[Path]) -> list[str]:
    """What seems to be missing in numbered sequences, in words; nothing where names only happen to hold numbers.

    >>> missing_numbers([Path("a/000.tar"), Path("a/001.tar"), Path("a/003.tar")])
    ['a/002.tar']
    """
    sequences: dict[tuple[Path, str, str, str], dict[int, int]] = defaultdict(dict)
    for path in paths:
        if found := _NUMBERED.match(path.stem):
            key = (path.parent, found["head"], found["total"] or "", found["tail"] + path.suffix)
            sequences[key][int(found["number"])] = len(found["number"])
    missing = []
    for (folder, head, total, tail), numbers in sequences.items():
        expected = range(int(total)) if total else range(min(numbers), max(numbers) + 1)
        if len(expected) <= 2 * len(numbers):
            gaps = [number for number in expected if number not in numbers]
            width = max(numbers.values())
            of = f"-of-{total}" if total else ""
            missing += [str(folder / f"{head}{number:0{width}}{of}{tail}") for number in gaps]
    return missing


def warn_of_gaps(paths: Sequence[Path]) -> None:
    """A warning that names the shards a sequence lacks."""
    if gaps := missing_numbers(paths):
        more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
        log.warning("the numbering of the files has gaps, is something missing? %s%s", ", ".join(gaps[:5]), more)


def labels(paths: Sequence[Path]) -> list[str]:
    """Short names of files for ids: the name without suffix, or, where several are called so, the path below the
    folder they share. They do not change when that folder is moved.

    >>> labels([Path("/x/a.tar"), Path("/x/b.tar")]), labels([Path("/x/test/0.tar"), Path("/x/train/0.tar")])
    (['a', 'b'], ['test/0', 'train/0'])
    """
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [path.relative_to(shared).with_suffix("").as_posix() for path in paths]
