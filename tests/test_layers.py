"""Imports go down only: reads every import of the package (also those inside functions) and refuses what the table
below does not allow. The table is the package's picture of itself; CONTRIBUTING.md draws it.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "bunny"

MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "data": {"core"},
    "text": {"core"},
    "curate": {"core"},
    "evaluate": {"core"},
    "model": {"core"},
    "train": {"core", "data", "text", "model"},
    "infer": {"core", "data", "text", "model"},
    "serve": {"core", "data"},
    "export": {"core", "model"},
    "pipeline": {"core", "data", "text", "curate", "evaluate", "model", "train", "infer", "serve", "export"},
    "study": {"core", "data", "text", "curate", "evaluate", "model", "train", "infer", "pipeline"},
    "cli": {"core", "pipeline", "study"},
    "plugins": {"core", "data", "pipeline"},
}
LAZY_ONLY = {layer: {"train", "infer", "serve", "export", "model"} for layer in ("pipeline", "study")}
"""Packages that import torch, which `pipeline` and `study` may import inside functions only."""

NO_TORCH = {"core", "data", "text", "evaluate", "serve", "cli"}
NO_TORCH_AT_IMPORT = {"pipeline", "study", "curate"}
HEAVY = {"torch", "transformers", "accelerate", "peft", "safetensors"}


def imports(path: Path, package: str) -> Iterator[tuple[int, str, bool]]:
    """(line, full module name, whether it runs when the file is imported) of every import in a file.

    `if TYPE_CHECKING:` blocks are left out: they are never run.
    """

    def visit(node: ast.AST, eager: bool) -> Iterator[tuple[int, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name, eager) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:  # from . import x
                    parts = package.split(".")
                    above = ".".join(parts[: len(parts) - child.level + 1])
                    base = f"{above}.{base}".rstrip(".")
                yield from ((child.lineno, f"{base}.{alias.name}", eager) for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, eager and not inside)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def violations(root: Path) -> list[str]:
    """One line per import that breaks a rule, for the package at `root` (a folder called bunny)."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if len(parts) == 1:
            continue  # bunny/__init__.py: what it may do is tested by the imports of a fresh process, below
        layer = parts[0]
        if layer not in MAY_IMPORT:
            found.append(f"{layer}: a package the table of layers does not know")
            continue
        package = ".".join(("bunny", *parts[:-1]))
        for line, name, eager in imports(path, package):
            found += [f"{'/'.join(parts)}:{line}: {wrong}" for wrong in judge(layer, name, eager)]
    return list(dict.fromkeys(found))


def judge(layer: str, name: str, eager: bool) -> Iterator[str]:
    words = name.split(".")
    if words[-1] == "*":
        yield f"star import of {name[:-2]}"
    if words[0] in HEAVY and (layer in NO_TORCH or (eager and layer in NO_TORCH_AT_IMPORT)):
        yield f"{layer} imports {words[0]}{' when it is imported' if layer in NO_TORCH_AT_IMPORT else ''}"
    if words[0] != "bunny" or len(words) < 2 or words[1] not in MAY_IMPORT or words[1] == layer:
        return
    if words[1] not in MAY_IMPORT[layer]:
        yield f"{layer} imports {words[1]}"
    elif eager and words[1] in LAZY_ONLY.get(layer, ()):
        yield f"{layer} imports {words[1]} when it is imported"


def test_imports_go_down_only() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "wrong"),
    [
        ("core/a.py", "import torch", "core imports torch"),
        ("evaluate/a.py", "def f():\n    import torch.nn", "evaluate imports torch"),
        ("curate/steps/a.py", "from bunny.data import images", "curate imports data"),
        ("curate/steps/a.py", "from ...data.images import open_image", "curate imports data"),
        ("text/a.py", "from bunny import model", "text imports model"),
        ("train/a.py", "from bunny.infer.generate import x", "train imports infer"),
        ("model/a.py", "class A:\n    def f(self):\n        import bunny.train", "model imports train"),
        ("core/a.py", "try:\n    import bunny.cli\nexcept ImportError:\n    x = 1", "core imports cli"),
        ("cli/a.py", "def f():\n    from bunny.model.build import build", "cli imports model"),
        ("pipeline/a.py", "import transformers", "pipeline imports transformers when it is imported"),
        ("pipeline/a.py", "from bunny.train import trainer", "pipeline imports train when it is imported"),
        ("data/a.py", "from bunny.core.types import *", "star import of bunny.core.types"),
        ("magic/a.py", "", "a package the table of layers does not know"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, file: str, code: str, wrong: str) -> None:
    path = tmp_path / "bunny" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    (found,) = violations(tmp_path / "bunny")
    assert wrong in found


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("core/a.py", "import numpy\nfrom bunny.core.errors import UserError\nfrom . import types"),
        ("curate/steps/a.py", "from bunny.curate.step import S\nfrom ..step import S"),
        ("train/a.py", "import torch\nfrom bunny.model.build import build\nfrom bunny.text import pack"),
        ("pipeline/a.py", "from bunny.core.recipe import Recipe\ndef f():\n    import torch, bunny.train.trainer"),
        ("cli/a.py", "def f():\n    from bunny.pipeline import flow"),
        ("cli/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ],
)
def test_an_allowed_import_is_not_complained_of(tmp_path: Path, file: str, code: str) -> None:
    path = tmp_path / "bunny" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert violations(tmp_path / "bunny") == []


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh process after `code`."""
    hush = "import io, sys\nsys.stdout = io.StringIO()"
    tell = "import json\nprint(json.dumps(sorted({m.split('.')[0] for m in sys.modules})), file=sys.__stdout__)"
    script = f"{hush}\n{code}\n{tell}"
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(json.loads(ran.stdout))


@pytest.mark.parametrize("words", [["--help"], ["demo", "--help"], ["chat", "--help"], ["version"]])
def test_help_does_not_import_the_heavy_libraries(words: list[str]) -> None:
    code = f"import sys\nsys.argv = ['bunny', *{words!r}]\ntry:\n    from bunny.cli import main\n    main()\n"
    modules = loaded_after(code + "except SystemExit as end:\n    assert not end.code")
    assert "bunny" in modules
    assert modules & {*HEAVY, "numpy", "scipy", "pyarrow", "matplotlib", "PIL"} == set()


@pytest.mark.parametrize("name", ["bunny", "bunny.core.store", "bunny.core.recipe"])
def test_importing_the_package_does_not_import_torch(name: str) -> None:
    assert loaded_after(f"import {name}") & HEAVY == set()


@pytest.mark.parametrize("package", sorted(NO_TORCH | NO_TORCH_AT_IMPORT))
def test_no_module_of_a_light_package_brings_torch_in(package: str) -> None:
    names = [
        ".".join(("bunny", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in sorted((PACKAGE / package).rglob("*.py"))
    ]
    if names:
        assert loaded_after("\n".join(f"import {name}" for name in names)) & HEAVY == set()
