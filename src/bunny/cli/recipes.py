"""From the words of a command to a checked `Recipe`: finds the file or the zoo's recipe, applies `--set`, `--fast`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bunny.core.errors import UserError

if TYPE_CHECKING:
    from bunny.core.recipe import Recipe

DEMO = Path("recipes") / "tiny-cpu.yaml"


def load(path: Path, overrides: list[str] | None = None, fast: bool = False) -> Recipe:
    """The validated recipe; a bare name that is no file is one of the zoo's.

    Raises UserError for a missing file, an unknown name or key, a value of the wrong kind.
    """
    if is_name(str(path)):
        from bunny.pipeline import zoo

        return zoo.load(str(path), tuple(overrides or ()), fast)
    from bunny.core.recipe import Recipe

    return Recipe.load(path, tuple(overrides or ()), fast)


def is_name(word: str) -> bool:
    """Whether a word can only be a name of the zoo's: no ending of a recipe file, no folder in it, no such file."""
    return not is_file_name(word) and Path(word).name == word and not Path(word).is_file()


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
    """Whether a word names a recipe, by its file or by its name in the zoo, and not a model."""
    if is_file_name(name):
        return True
    from bunny.pipeline import zoo

    return is_name(name) and not Path(name).exists() and name in zoo.names()


def is_file_name(word: str) -> bool:
    """Whether a word ends as a recipe file does."""
    return Path(word).suffix.lower() in (".yaml", ".yml")
