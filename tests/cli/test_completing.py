"""Tab completion, asked for as the shell asks: by the environment, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUNNY = Path(sys.executable).with_name("bunny")


def proposed(folder: Path, *words: str) -> list[str]:
    """What bash would propose for the last word."""
    asked = {
        "_BUNNY_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["bunny", *words]),
        "COMP_CWORD": str(len(words)),
    }
    ran = subprocess.run(
        [str(BUNNY)], env=os.environ | asked, capture_output=True, text=True, cwd=folder, check=True, timeout=60
    )
    assert ran.stderr == ""
    return ran.stdout.split()


@pytest.mark.skipif(not BUNNY.exists(), reason="the command is not installed beside this Python")
@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["tra"], ["train"]),
        (["train", "bunny-v1.0-3b-f"], ["bunny-v1.0-3b-full"]),
        (["train", "mine"], ["mine.yaml"]),
        (["zoo", "bunny-v1.0-3b-f"], ["bunny-v1.0-3b-full"]),
        (["eval", "model", "-t", "easy_vqa,po"], ["easy_vqa,pope", "easy_vqa,position"]),
        (["chat", "mod"], ["model/"]),
        (["chat", "model", "ca"], ["cat.png"]),
        (["chat", "--load"], ["--load-in"]),
    ],
)
def test_names_and_paths_are_proposed(tmp_path: Path, words: list[str], some: list[str]) -> None:
    (tmp_path / "model").mkdir()
    for name in ("mine.yaml", "cat.png", "notes.txt"):
        (tmp_path / name).touch()
    assert proposed(tmp_path, *words) == some


def test_nothing_heavy_is_loaded_for_a_proposal(tmp_path: Path) -> None:
    code = (
        "import sys; from bunny.cli import completing as c; c.recipes('bu'), c.benchmarks('p'), c.paths('');"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'numpy', 'pydantic', 'pyarrow'}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout == "[]\n"


@pytest.mark.skipif(shutil.which("bash") is None or not BUNNY.exists(), reason="needs bash and the command")
def test_the_script_for_bash_installs_and_works(tmp_path: Path) -> None:
    environment = os.environ | {
        "HOME": str(tmp_path),
        "SHELL": "/bin/bash",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    subprocess.run(
        [str(BUNNY), "--install-completion", "bash"], env=environment, check=True, capture_output=True, timeout=60
    )
    assert "bunny" in (tmp_path / ".bashrc").read_text(encoding="utf-8")
    (script,) = (tmp_path / ".bash_completions").glob("*.sh")
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "complete_bash" in script.read_text(encoding="utf-8")
