"""What the documentation says is true: its examples run, its commands and options exist, its links lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bunny.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])
MODULES = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "src").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
FENCE = re.compile(r"^```(\S+)( .*)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[str]:
    """Code of the page's fences in a language, but for those marked: ```python (not run here)."""
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        if found[1] == language and not found[2]:
            yield found[3]


def commands() -> list[tuple[str, str]]:
    """(page, command line) of every `bunny …` in a shell fence of the documentation."""
    lines = [(name(page), line.strip()) for page in PAGES for code in blocks(page, "sh") for line in code.splitlines()]
    return [(page, line.split("#")[0].strip()) for page, line in lines if line.startswith(("bunny ", "make "))]


@pytest.mark.parametrize("page", [page for page in PAGES if list(blocks(page, "python"))], ids=name)
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = {"folder": tmp_path, "__name__": "docs"}
    for code in blocks(page, "python"):
        exec(compile(code, name(page), "exec"), space)


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_give_what_they_say(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_and_their_options_exist(page: str, line: str) -> None:
    words = line.split()
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
        return
    shown, verbs = CliRunner().invoke(app, ["--help"]).stdout, []
    for word in words[1:]:
        if not re.search(rf"^  {re.escape(word)}  ", shown, re.MULTILINE):
            break
        verbs.append(word)
        shown = CliRunner().invoke(app, [*verbs, "--help"]).stdout
    assert verbs or words[1].startswith("-"), f"no such command: {line}"
    for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", line):
        assert re.search(rf"(^|[ ,]){re.escape(option)}\b", shown), f"{line}: no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_recipe_tables_are_up_to_date() -> None:
    scripts = importlib.import_module("scripts.recipe_docs")
    text = scripts.PAGE.read_text(encoding="utf-8")
    assert text == scripts.page(text), "run `make docs`"
    assert "| `rows_per_step` | `int` | `128` | global batch in rows (conversations); > 0 |" in text
