"""What the shell proposes when tab is pressed: recipes of the zoo, benchmarks, files. Only folders are listed: no model
and no library is loaded, so that an answer comes at once.
"""

from __future__ import annotations

from pathlib import Path

import bunny

RECIPE_ENDS = ("/", ".yaml", ".yml")
PACKAGE = Path(bunny.__file__).resolve().parent


def recipes(incomplete: str) -> list[str]:
    """Recipes: names of the zoo, YAML files and folders."""
    folder = next(
        (root / "recipes" / "zoo" for root in (PACKAGE.parents[1], PACKAGE) if (root / "recipes").is_dir()), None
    )
    known = sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "backbones") if folder else []
    return [*_starting(known, incomplete), *(path for path in paths(incomplete) if path.endswith(RECIPE_ENDS))]


def zoo(incomplete: str) -> list[str]:
    """Names of the zoo."""
    return [word for word in recipes(incomplete) if Path(word).name == word and not Path(word).exists()]


def benchmarks(incomplete: str) -> list[str]:
    """Benchmarks; of several between commas, the last one."""
    before, comma, last = incomplete.rpartition(",")
    folder = PACKAGE / "evaluate" / "benchmarks"
    known = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return [f"{before}{comma}{name}" for name in _starting(known, last)]


def paths(incomplete: str) -> list[str]:
    """Files, and folders with a slash."""
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    head = incomplete[: incomplete.rfind("/") + 1]
    try:
        here = sorted(folder.iterdir())
    except OSError:
        return []
    found = [f"{head}{one.name}/" if one.is_dir() else f"{head}{one.name}" for one in here if one.name[0] != "."]
    return _starting(found, incomplete)


def models(incomplete: str) -> list[str]:
    """Folders."""
    return [word for word in paths(incomplete) if word.endswith("/")]


def _starting(words: list[str], start: str) -> list[str]:
    return [word for word in words if word.startswith(start)]
