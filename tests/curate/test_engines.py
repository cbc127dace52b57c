"""The engines: each runs the same tasks to the same bytes, tells what failed, and survives what kills its workers."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bunny.core.errors import UserError
from bunny.core.protocols import Engine
from bunny.core.types import Task
from bunny.curate.engines import LocalEngine, leading, make_engine, release
from bunny.curate.engines._workers import Workers
from tests.curate import made_tasks
from tests.curate.processes import all_gone, gone, kill_started, start, wait_for, wait_until

MADE = "tests.curate.made_tasks"

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
ENGINES = ["here", "workers", "ranks", pytest.param("ray", marks=[needs_ray, pytest.mark.slow])]


def task(function: str, output: Path, **arguments: Any) -> Task:
    return Task(f"{MADE}:{function}", arguments, output)


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(".ranks")}


@pytest.fixture(scope="module")
def crew() -> Iterator[LocalEngine]:
    """Two worker processes for the tests that want no others."""
    engine = LocalEngine(workers=2, threads=1)
    yield engine
    engine.close()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path, crew: LocalEngine) -> Iterator[Engine]:
    if request.param == "workers":
        yield crew
        return
    blocks = {
        "here": None,
        "ray": {"use": "ray", "workers": 2, "retries": 1},
        "ranks": {"use": "ranks", "rank": 0, "world": 1, "folder": str(tmp_path / ".ranks")},
    }
    made = make_engine(blocks[request.param])
    with leading(made) as leads:
        assert leads
        yield made


def test_makes_files_and_folders(engine: Engine, tmp_path: Path) -> None:
    tasks = [task("write", tmp_path / f"{n}.txt", text=f"part {n}") for n in range(5)]
    tasks.append(task("write_folder", tmp_path / "deep" / "folder", names=["a", "b"]))
    engine.run("writing", tasks)
    assert files(tmp_path) == {f"{n}.txt": f"part {n}".encode() for n in range(5)} | {
        "deep/folder/a": b"a",
        "deep/folder/b": b"b",
    }


def test_what_is_there_is_not_made_again(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "0.txt").write_text("before")
    engine.run("writing", [task("write", tmp_path / f"{n}.txt", text="now") for n in range(2)])
    assert files(tmp_path) == {"0.txt": b"before", "1.txt": b"now"}


def test_arguments_reach_the_function_as_json_has_them(engine: Engine, tmp_path: Path) -> None:
    engine.run("kinds", [task("kinds", tmp_path / "kinds", pair=(1, 2), nothing=None, share=0.5, name="ü")])
    assert (tmp_path / "kinds").read_text() == "{'pair': [1, 2], 'nothing': None, 'share': 0.5, 'name': 'ü'}"


def test_arguments_that_json_has_no_word_for_are_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON"):
        engine.run("kinds", [task("kinds", tmp_path / "kinds", path=Path("a"))])


def test_no_tasks_are_no_work(engine: Engine) -> None:
    engine.run("nothing", [])


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("refuse", {"what": "a torn shard"}, r"a torn shard \(in .*:refuse.*for .*bad\); mend it so"),
        ("write_nothing", {}, r"ended without its output"),
        ("gone", {}, r"cannot be found"),
    ],
)
def test_each_kind_of_failure_is_told(tmp_path: Path, function: str, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LocalEngine().run("trying", [task(function, tmp_path / "bad", **arguments)])


def test_a_failed_task_is_named_and_the_others_are_made(engine: Engine, tmp_path: Path) -> None:
    tasks = [task("write", tmp_path / "first", text="1"), task("break_down", tmp_path / "bad")]
    tasks += [task("refuse", tmp_path / "worse", what="no"), task("write", tmp_path / "last", text="2")]
    first = r"trying: 2 of 4 parts failed; the first: ValueError: three lines long \(in .*:break_down.*for .*bad"
    with pytest.raises(UserError, match=first):
        engine.run("trying", tasks)
    assert files(tmp_path) == {"first": b"1", "last": b"2"}


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(st.text(max_size=20), max_size=9), there=st.sets(st.integers(0, 8)))
def test_workers_give_the_same_bytes_whatever_was_done_before(
    crew: LocalEngine, texts: list[str], there: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for engine, place in ((LocalEngine(), folder / "one"), (crew, folder / "many")):
            tasks = [task("write", place / str(n), text=text) for n, text in enumerate(texts)]
            for number in there & set(range(len(texts))):
                made_tasks.write(texts[number], place / str(number))
            engine.run("writing", tasks)
        assert files(folder / "one") == files(folder / "many")
        assert len(files(folder / "one")) == len(texts)


def who(engine: Engine, folder: Path, count: int) -> set[int]:
    """The processes that ran so many tasks."""
    engine.run("who", [task("process", folder / str(n)) for n in range(count)])
    return {int((folder / str(n)).read_text()) for n in range(count)}


def test_workers_stay_from_phase_to_phase_until_they_are_released(tmp_path: Path) -> None:
    engine = LocalEngine(workers=2, threads=1)
    first = who(engine, tmp_path / "first", 6)
    assert who(engine, tmp_path / "second", 6) == first and who(engine, tmp_path / "third", 1) <= first
    idle = first - who(engine, tmp_path / "which", 1)
    for pid in idle:  # one that dies idle is no task's fault
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(gone(pid) for pid in idle))
    later = who(engine, tmp_path / "fourth", 6)
    assert not later & idle and not any(gone(pid) for pid in later)
    release(engine)
    assert all(gone(pid) for pid in first | later)
    (last,) = who(engine, tmp_path / "fifth", 1)
    del engine
    gc.collect()
    assert gone(last)


def test_of_workers_with_other_numbers_of_threads_only_the_last_two_kinds_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Workers()
    alive: dict[Any, int] = {}
    monkeypatch.setattr("bunny.curate.engines._workers._end", lambda some: [alive.pop(one) for one in some])
    for threads in (4, 1, 4, 2):
        crew.expect(threads)
        crew._processes[0, threads] = f"of {threads}"  # type: ignore[assignment]  # a stand-in
        alive[f"of {threads}"] = threads
    assert sorted(alive.values()) == [2, 4]


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    LocalEngine().run("here", [task("process", tmp_path / "it")])
    assert (tmp_path / "it").read_text() == str(os.getpid())


def test_workers_share_the_cores_and_each_has_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    names = ["CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"]
    tasks = [task("process", tmp_path / f"{n}", names=names) for n in range(8)]
    LocalEngine(workers=2, threads=3).run("there", tasks)
    said = [text.decode().split() for text in files(tmp_path).values()]
    assert str(os.getpid()) not in {process for process, *_ in said}
    assert len({device for _, device, *_ in said}) == len({process for process, *_ in said})
    assert {tuple(limits) for _, _, *limits in said} == {("3", "3")}


def test_a_task_whose_worker_is_killed_is_tried_again_once(tmp_path: Path) -> None:
    tasks = [task("die", tmp_path / "out" / "never", times=str(tmp_path / "never"), count=9)]
    tasks += [task("write", tmp_path / "out" / f"{n}", text=str(n)) for n in range(3)]
    tasks += [task("die", tmp_path / "out" / "hard", times=str(tmp_path / "hard"), count=1)]
    told = r"1 of 5 parts failed.*killed, twice \(signal 9\).*out/never\); give it more memory, fewer workers"
    with pytest.raises(UserError, match=told):
        LocalEngine(workers=2).run("hard", tasks)
    assert (tmp_path / "never").read_text() == "2"
    assert (tmp_path / "out" / "hard").read_text() == "survived 1"
    assert all((tmp_path / "out" / f"{n}").exists() for n in range(3))


def test_workers_that_cannot_start_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bunny.py").write_text("raise RuntimeError('broken')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(UserError, match=r"a worker process did not start \(exit status 1\)"):
        LocalEngine(workers=2).run("left", [task("write", tmp_path / f"{n}", text="") for n in range(9)])


def test_a_worker_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ended, twice, with exit status 7"):
        LocalEngine(workers=1, threads=1).run("left", [task("leave", tmp_path / "left")])


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    kill_started()


def linger(folder: Path, workers: int) -> None:
    tasks = [task("linger", folder / "out" / f"{n}", started=str(folder / f"started-{n}")) for n in range(2)]
    LocalEngine(workers=workers).run("long", tasks)


def idle(folder: Path) -> None:
    engine = LocalEngine(workers=1, threads=1)
    engine.run("short", [task("process", folder / "started-0")])
    time.sleep(60)


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGKILL, 2)])
def test_a_stopped_run_leaves_only_whole_outputs_and_no_process(tmp_path: Path, how: int, workers: int) -> None:
    process = start(linger, tmp_path, workers, err=tmp_path / "err")
    signs = [tmp_path / f"started-{n}" for n in range(workers)]
    wait_for(*signs)
    os.kill(process.pid, how)
    process.said(20)
    all_gone(signs)
    left = files(tmp_path / "out")
    assert not [name for name in left if not name.startswith(".")]
    if how != signal.SIGKILL:
        assert left == {} and process.status != 0


def test_idle_workers_go_with_the_process_that_keeps_them(tmp_path: Path) -> None:
    process = start(idle, tmp_path, err=tmp_path / "err")
    wait_for(tmp_path / "started-0")
    os.kill(process.pid, signal.SIGKILL)
    process.said(20)
    all_gone([tmp_path / "started-0"])


def test_an_unknown_engine_or_setting_is_told() -> None:
    with pytest.raises(UserError, match=r"nothing is called `locl`, did you mean `local`"):
        make_engine({"use": "locl"})
    with pytest.raises(UserError, match="unknown key `wokers`"):
        make_engine({"use": "local", "wokers": 2})


def test_without_ray_its_engine_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs Ray; pip install 'bunny-vlm\[ray\]'"):
        make_engine({"use": "ray"}).run("far", [task("write", tmp_path / "a", text="a")])


@needs_ray
@pytest.mark.slow
def test_ray_survives_lost_workers(tmp_path: Path) -> None:
    tasks = [task("write", tmp_path / "out" / f"{n}", text=str(n)) for n in range(4)]
    tasks += [
        task("die", tmp_path / "out" / f"hard-{n}", times=str(tmp_path / f"times-{n}"), count=1) for n in range(2)
    ]
    make_engine({"use": "ray", "retries": 2}).run("hard", tasks)
    assert (tmp_path / "out" / "hard-1").read_text() == "survived 1"
    with pytest.raises(UserError, match=r"worker was lost 2 times"):
        hopeless = task("die", tmp_path / "never", times=str(tmp_path / "times"), count=9)
        make_engine({"use": "ray", "retries": 1}).run("hard", [hopeless])


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no port:x"])
def test_a_ray_cluster_out_of_reach_is_told_at_once(tmp_path: Path, address: str) -> None:
    process = start(far, address, err=tmp_path / "err")
    said = process.said()
    assert process.status == 1 and f"Ray cluster {address}: cannot be reached" in said, said


def far(address: str) -> None:
    make_engine({"use": "ray", "address": address}).run("far", [Task("os:getcwd", {}, Path("/nowhere"))])
