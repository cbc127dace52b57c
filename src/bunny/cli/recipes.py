"""From the words of a command to a checked `Recipe`: finds the file, applies `--set` and `--fast`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bunny.core.errors import UserError

if TYPE_CHECKING:
    from bunny.core.recipe import Recipe

DEMO = Path("recipes") / "tiny-cpu.yaml"


def load(path: Path, overrides: list[str] | None = None, fast: bool = False) -> Recipe:
    """The validated recipe. Raises UserError for a missing file, an unknown key, a value of the wrong kind."""
    from bunny.core.recipe import Recipe

    return Recipe.load(path, tuple(overrides or ()), fast)


def demo_recipe() -> Path:
    """The demo's recipe: in the clone this package runs from, or in the current folder."""
    import bunny

    clone = Path(bunny.__file__).resolve().parents[2]
    for folder in (clone, Path.cwd()):
        if (folder / DEMO).is_file():
            return folder / DEMO
    raise UserError(
        f"the demo needs {DEMO} and the pictures beside it, which only the repository has",
        fix="run it in a clone (`git clone …`, `make demo`), or name a recipe: `bunny run RECIPE`",
    )


def run_folder(recipe: Recipe, output: Path | None) -> Path:
    """Where a recipe's artifacts go: `--output`, or `runs/NAME`."""
    return output if output is not None else Path("runs") / recipe.name


def is_recipe(name: str) -> bool:
    """Whether a word names a recipe file and not a model."""
    return Path(name).suffix.lower() in (".yaml", ".yml")
