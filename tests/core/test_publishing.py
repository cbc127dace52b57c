"""Outputs are there whole or not at all, and what dead processes left is cleared away."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bunny.core import publishing
from bunny.core.errors import UserError
from bunny.core.publishing import publish


def test_an_output_appears_when_it_is_whole(tmp_path: Path) -> None:
    with publish(tmp_path / "a" / "rows.npy") as temporary:
        np.save(temporary, np.arange(3))
        assert not (tmp_path / "a" / "rows.npy").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["rows.npy"]


def test_a_failure_leaves_nothing_and_keeps_the_old_output(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(KeyboardInterrupt), publish(tmp_path / "out") as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out": "old"}


def test_a_folder_that_another_process_made_first_stays(tmp_path: Path) -> None:
    with publish(tmp_path / "part") as temporary:
        temporary.mkdir()
        (temporary / "mine").touch()
        (tmp_path / "part").mkdir()
        (tmp_path / "part" / "theirs").touch()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["part", "part/theirs"]


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"No space left on device; make room"), publish(tmp_path / "out") as temporary:
        temporary.write_text("some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), publish(tmp_path / "out"):
        pass


def test_temporaries_of_dead_processes_are_cleared_those_of_living_ones_stay(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from bunny.core.publishing import publish\n"
        "with publish(Path(sys.argv[1]) / 'part') as temporary:\n"
        "    temporary.mkdir(); (temporary / 'half').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".part.~")
    foreign = tmp_path / ".part.~elsewhere-1~1~1~ab"
    foreign.touch()
    with publish(tmp_path / "part.txt") as other, publish(tmp_path / "part") as temporary:
        other.touch()
        temporary.mkdir()
        assert not left.exists() and other.exists()
        with publish(tmp_path / "part.txt") as twin:
            assert other.exists()  # ours, at work in another thread
            twin.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [foreign.name, "part", "part.txt"]
    os.utime(foreign, (0, 0))
    publishing.sweep(tmp_path / "part")
    assert not foreign.exists()


def test_a_process_number_used_again_does_not_pass_for_the_old_process(tmp_path: Path) -> None:
    old = tmp_path / f".part.~{publishing._host()}~{os.getpid()}~12~ab"
    old.touch()
    publishing.sweep(tmp_path / "part")
    assert not old.exists()
