"""The artifact store: made once, again when something changed, finished when killed, plain words when it cannot."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bunny.core.errors import UserError
from bunny.core.store import MANIFEST, Artifact, Store, fingerprint, fingerprint_files, write_atomic


class Builder:
    """Writes a file and counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> Mapping[str, Any]:
        self.calls += 1
        (folder / "out.txt").write_text(f"call {self.calls}")
        return {"rows": 3}


def unfinished(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name.startswith("."))


def test_an_artifact_holds_its_files_and_says_what_made_it(tmp_path: Path) -> None:
    made = Store(tmp_path).make("curated", Builder(), settings={"above": 0.9}, inputs={"pool": "abc"})
    manifest = json.loads((tmp_path / "curated" / MANIFEST).read_text())
    assert (made.path / "out.txt").read_text() == "call 1"
    assert manifest["settings"] == {"above": 0.9}
    assert manifest["inputs"] == {"pool": "abc"}
    assert manifest["rows"] == 3
    assert made.fingerprint == fingerprint("curated", {"above": 0.9}, {"pool": "abc"})
    assert made.seconds >= 0
    assert sorted(path.name for path in made.path.iterdir()) == [MANIFEST, "out.txt"]


def test_the_same_fingerprint_is_not_made_again(tmp_path: Path) -> None:
    build = Builder()
    first = Store(tmp_path).make("a", build, settings={"x": 1})
    again = Store(tmp_path).make("a", build, settings={"x": 1})
    assert build.calls == 1
    assert first.manifest == again.manifest


@pytest.mark.parametrize("change", [{"settings": {"x": 2}}, {"settings": {"x": 1}, "inputs": {"pool": "other"}}])
def test_changed_settings_or_inputs_make_it_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    build, store = Builder(), Store(tmp_path)
    old = store.make("a", build, settings={"x": 1})
    new = store.make("a", build, **change)
    assert build.calls == 2
    assert (new.path / "out.txt").read_text() == "call 2"
    assert new.fingerprint != old.fingerprint
    assert unfinished(tmp_path) == []


def test_an_old_artifact_stays_until_the_new_one_is_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make("a", Builder(), settings=1)

    def fails(folder: Path) -> None:
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        store.make("a", fails, settings=2)
    assert (Artifact.load(tmp_path / "a").path / "out.txt").read_text() == "call 1"


def test_an_interrupted_build_goes_on_in_its_own_folder_and_its_time_adds_up(tmp_path: Path) -> None:
    store, seen = Store(tmp_path), []

    def build(folder: Path) -> None:
        seen.append(sorted(path.name for path in folder.glob("part-*")))
        (folder / f"part-{len(seen)}").touch()
        if len(seen) < 3:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            store.make("a", build, settings=1)
        (folder,) = (tmp_path / name for name in unfinished(tmp_path))
        before, started, ended = (float(word) for word in (folder / ".seconds").read_text().split())
        (folder / ".seconds").write_text(f"{before + 50} {started} {ended}")
    assert store.make("a", build, settings=1).seconds == pytest.approx(100, abs=5)
    assert seen == [[], ["part-1"], ["part-1", "part-2"]]


def test_unfinished_work_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def stops(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make("a", stops, settings=1)
    made = store.make("a", Builder(), settings=2)
    assert not (made.path / "half").exists()
    assert unfinished(tmp_path) == []


KILLED = """
    import os, signal, sys, time
    from pathlib import Path
    from bunny.core.store import Store

    def build(folder):
        parts = len(list(folder.glob("part-*")))
        (folder / f"part-{parts}").touch()
        if parts < 2:
            later = time.time() + 100                                  # as if it had worked for 100 seconds
            os.utime(folder / f"part-{parts}", (later, later))
            os.kill(os.getpid(), signal.SIGKILL)
        return {"parts": parts + 1}

    Store(Path(sys.argv[1])).make("a", build, settings=1)
"""


def test_a_process_killed_for_good_is_gone_on_with_and_its_time_counts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    codes = [subprocess.run(command, check=False, timeout=60).returncode for _ in range(3)]
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    made = Artifact.load(tmp_path / "a")
    assert made.manifest["parts"] == 3
    assert made.seconds == pytest.approx(200, abs=20)
    assert unfinished(tmp_path) == []


def test_work_killed_between_finishing_and_publishing_is_published(tmp_path: Path) -> None:
    store, build = Store(tmp_path), Builder()
    done = store.make("a", build, settings=1)
    (tmp_path / "a").rename(tmp_path / f".a.{done.fingerprint}")
    (tmp_path / ".a.old.123").mkdir()
    assert store.make("a", build, settings=1).manifest == done.manifest
    assert build.calls == 1
    assert unfinished(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00"])
def test_a_damaged_manifest_is_one_line_with_a_fix(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    store.make("a", Builder(), settings=1)
    (tmp_path / "a" / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"damaged.*delete the folder and run again"):
        store.make("a", Builder(), settings=1)


def test_a_missing_artifact_says_which_stage_is_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the stage that makes it first"):
        Artifact.load(tmp_path / "none")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB, where this machine lets us have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.name != "posix" or os.getuid() != 0:
        pytest.skip("only root can mount a disk")
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run([mount, *options], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_is_one_line_and_the_work_is_kept(tiny_disk: Path) -> None:
    store = Store(tiny_disk)
    store.make("before", Builder(), settings=1)

    def greedy(folder: Path) -> None:
        (folder / "small").write_text("kept")
        (folder / "big").write_bytes(bytes(1 << 20))

    with pytest.raises(UserError, match=r"No space left on device.*finished work is kept") as caught:
        store.make("a", greedy, settings=1)
    assert "\n" not in str(caught.value)
    (work,) = (tiny_disk / name for name in unfinished(tiny_disk))
    assert (work / "small").read_text() == "kept"
    (work / "big").unlink()
    assert store.make("a", Builder(), settings=1).manifest["rows"] == 3


def test_a_really_read_only_disk_is_one_line(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(UserError, match="Read-only file system; choose another folder"):
        Store(tiny_disk / "run")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "x.bin"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # as safetensors says it
    ],
)
def test_a_disk_that_takes_nothing_is_a_user_error_whoever_says_it(tmp_path: Path, error: Exception) -> None:
    def fails(folder: Path) -> None:
        raise error

    with pytest.raises(UserError, match="choose another folder with --output"):
        Store(tmp_path).make("a", fails, settings=1)


def test_other_errors_pass_through_unchanged(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "gone", "input.bin")

    with pytest.raises(FileNotFoundError, match=r"input\.bin"):
        Store(tmp_path).make("a", fails, settings=1)


def test_a_file_where_the_folder_should_be_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(UserError, match="cannot write to"):
        Store(tmp_path / "run")


def test_a_second_process_in_the_same_folder_is_turned_away(tmp_path: Path) -> None:
    second = "import sys; from pathlib import Path; from bunny.core.store import Store\n"
    second += "Store(Path(sys.argv[1])).make('b', lambda folder: None, settings=1)"

    def build(folder: Path) -> dict[str, Any]:
        ran = subprocess.run([sys.executable, "-c", second, str(tmp_path)], check=False, capture_output=True, text=True)
        return {"code": ran.returncode, "words": ran.stderr}

    manifest = Store(tmp_path).make("a", build, settings=1).manifest
    assert manifest["code"] == 1
    assert "another process is at work there" in manifest["words"]
    assert not (tmp_path / "b").exists()


def test_a_fingerprint_ignores_order_and_sees_every_value() -> None:
    base = fingerprint("a", {"x": 1, "y": 2}, {"p": "1", "q": "2"})
    assert base == fingerprint("a", {"y": 2, "x": 1}, {"q": "2", "p": "1"})
    others = [
        fingerprint("b", {"x": 1, "y": 2}, {"p": "1", "q": "2"}),
        fingerprint("a", {"x": 1, "y": 3}, {"p": "1", "q": "2"}),
        fingerprint("a", {"x": 1, "y": 2}, {"p": "2", "q": "1"}),
    ]
    assert len({base, *others}) == 4


def test_files_are_told_apart_by_name_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("b")
    before = fingerprint_files([one, two])
    assert before == fingerprint_files([two, one])
    two.write_text("c")
    assert fingerprint_files([one, two]) != before


def test_a_failed_write_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "note.json"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
