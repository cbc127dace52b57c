"""`bunny chat` as a person runs it: in a terminal of its own, and in a pipe, with a tiny model."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tiny_bunny import save_bunny

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "bunny", "chat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    Image.new("RGB", (9, 7), "red").save(folder / "red picture.png")
    return save_bunny(folder)


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.ours, theirs = pty.openpty()
        self.seen = ""
        environment = os.environ | {"TERM": "xterm", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment, start_new_session=True
        )
        os.close(theirs)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def wait(self, pattern: str, seconds: float = 120.0) -> str:
        """What was shown up to the pattern, which is taken off."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{pattern!r} never came after: {self.seen!r}"
            try:
                self.seen += os.read(self.ours, 1 << 16).decode("utf-8", "replace")
            except OSError:  # the command has ended
                raise AssertionError(f"{pattern!r} never came; it ended after: {self.seen!r}") from None
        before, self.seen = self.seen[: found.start()], self.seen[found.end() :]
        return before

    def line(self, text: str) -> str:
        """What a line brings up to the next prompt."""
        self.type(text + "\r")
        self.wait(re.escape(text) + r"\r\n")
        return self.wait(r"> $").replace("\r\n", "\n")


def test_a_person_talks_stops_an_answer_saves_and_loads_it_again(model: Path) -> None:
    folder = model.parent
    shell = Terminal([*COMMAND, str(model), "--max-new-tokens", "400"], folder)
    try:
        assert "/help lists" in shell.wait(r"> $")
        assert shell.line("/image 'red picture.png'") == ""
        shell.type("what is this?\r")
        shell.wait(r"\?\r\n")
        shell.wait(r"\S\S\S")  # it has begun to answer
        os.kill(shell.process.pid, signal.SIGINT)
        shell.wait(r"stopped; what was written stays")
        shell.wait(r"> $")
        assert "saved: talk.json" in shell.line("/save talk.json")
        (row,) = json.loads((folder / "talk.json").read_text(encoding="utf-8"))
        assert (row["image"], len(row["conversations"])) == ("red picture.png", 2)
        assert "temperature=0.0" in shell.line("/set")
        shell.line("/set max_new_tokens=5")
        assert len(shell.line("and?")) > 1
        shell.line("/reset")
        assert "1 questions and answers, 1 pictures" in shell.line("/load talk.json")
        assert "did you mean `/reset`" in shell.line("/rest")
        os.kill(shell.process.pid, signal.SIGINT)
        shell.wait(r"Ctrl-D or /quit ends")
        shell.type("\x04")
        assert shell.process.wait(60) == 0
    finally:
        shell.process.kill()
        shell.process.wait()
        os.close(shell.ours)


def piped(model: Path, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, str(model), *words, "--max-new-tokens", "6"],
        input=text,
        capture_output=True,
        text=True,
        cwd=model.parent,
        check=False,
    )


def test_a_pipe_holds_answers_and_nothing_else(model: Path) -> None:
    ran = piped(model, "red picture.png", "--json", text="what?\nand?\n")
    assert (ran.returncode, ran.stderr) == (0, "")
    found: list[Any] = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [list(line) for line in found] == [["answer"], ["answer"]]


def test_a_question_longer_than_the_model_reads_is_one_line_with_its_length(model: Path) -> None:
    ran = piped(model, "word " * 2000)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(r"bunny: the prompt has \d+ tokens, the model reads 512; .*\n", ran.stderr)
