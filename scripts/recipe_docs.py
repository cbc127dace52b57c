"""Writes the tables of docs/recipes.md from the classes that check recipes, so that page and program agree.

`python scripts/recipe_docs.py` writes the page, `--check` only says (exit code 1) that it is out of date.
A field's note is its pydantic description, or the comment behind it in the source.
"""

from __future__ import annotations

import ast
import inspect
import sys
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from bunny.core import recipe
from bunny.core.recipe import find, names

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
BEGIN, END = "<!-- tables: written by scripts/recipe_docs.py -->\n", "<!-- end of tables -->\n"

SECTIONS = [
    ("The recipe", recipe.Recipe),
    ("`pool`", recipe.PoolSection),
    ("`curate`", recipe.CurateSection),
    ("`model`", recipe.ModelSection),
    ("`align`, `tune` and `second`", recipe.StageSection),
    ("`align.lora` and `tune.lora`", recipe.LoraSection),
    ("`merge`", recipe.MergeSection),
    ("`evaluate`", recipe.EvaluateSection),
    ("`card`", recipe.CardSection),
]
PACKAGES = [
    ("`pool.source`: where pairs come from", "bunny.data.sources"),
    ("`curate.embedder`: what makes the vectors", "bunny.infer.embedders"),
    ("`curate.steps`: what is kept and why", "bunny.curate.steps"),
    ("`align.data`, `tune.data`: how conversations are made", "bunny.data.makers"),
    ("`evaluate.tasks`: what is asked", "bunny.evaluate.benchmarks"),
]


def tables() -> str:
    """All tables in Markdown: one per section, one per name that `use:` knows."""
    parts = ["## Sections\n"]
    parts += [_heading(title, kind, "###") + _table(kind) for title, kind in SECTIONS]
    parts += ["## Names for `use:`\n"]
    for title, package in PACKAGES:
        parts.append(f"### {title}\n")
        for name in names(package):
            kind = find(name, package, "docs")
            parts.append(_heading(f"`use: {name}`", kind, "####") + _table(kind))
    return "\n".join(parts)


def page(old: str) -> str:
    """The page with its tables written anew."""
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def _heading(title: str, kind: type[BaseModel], level: str) -> str:
    first = " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())
    return f"{level} {title}\n\n{first}\n\n"


def _table(kind: type[BaseModel]) -> str:
    if not kind.model_fields:
        return "No settings.\n"
    rows = [_row(kind, name, field) for name, field in kind.model_fields.items()]
    return "\n".join(["| field | type | default | note |", "|---|---|---|---|", *rows]) + "\n"


def _row(kind: type[BaseModel], name: str, field: Any) -> str:
    type_text, comment = next(_source(owner)[name] for owner in kind.__mro__ if name in _source(owner))
    note = field.description or comment
    limits = ", ".join(str(mark) for mark in field.metadata if type(mark).__name__ in ("Gt", "Ge", "Lt", "Le"))
    for word, sign in (("Gt(gt=", "> "), ("Ge(ge=", "≥ "), ("Lt(lt=", "< "), ("Le(le=", "≤ "), (")", "")):
        limits = limits.replace(word, sign)
    note = "; ".join(part for part in (note, limits) if part)
    cells = (f"`{name}`", f"`{type_text}`", _default(field), note)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return f"`{field.default_factory()!r}`"
    if field.default is PydanticUndefined:
        return "needed"
    return "see there" if isinstance(field.default, BaseModel) else f"`{field.default!r}`"


@cache
def _source(kind: type) -> dict[str, tuple[str, str]]:
    """Field -> (type as written, comment behind it) of the fields that a class itself declares."""
    if not (issubclass(kind, BaseModel) and kind is not BaseModel):
        return {}
    path = Path(inspect.getfile(kind))
    text = path.read_text(encoding="utf-8")
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens}
    classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    body = next(node.body for node in classes if node.name == kind.__name__)
    fields = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return {
        node.target.id: (_plain(node.annotation), comments.get(node.end_lineno or 0, ""))
        for node in fields
        if isinstance(node.target, ast.Name)
    }


def _plain(annotation: ast.expr) -> str:
    """A type as written, with the choices of a Literal alone."""
    text = ast.unparse(annotation)
    for part in ast.walk(annotation):
        if isinstance(part, ast.Subscript) and ast.unparse(part.value) == "Literal":
            choices = part.slice.elts if isinstance(part.slice, ast.Tuple) else [part.slice]
            text = text.replace(ast.unparse(part), " | ".join(str(ast.literal_eval(choice)) for choice in choices))
    return text


def main() -> int:
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if "--check" in sys.argv:
        if new != old:
            print(f"{PAGE.name} is out of date: run `make docs`", file=sys.stderr)
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
