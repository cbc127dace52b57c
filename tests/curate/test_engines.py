"""The engines: each runs the same tasks to the same bytes, tells what failed, and survives what kills its workers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
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
from bunny.curate.engines import LocalEngine, RankEngine, leading, make_engine
from tests.curate import made_tasks

MADE = "tests.curate.made_tasks"
INSIDE = "bunny.made_tasks"  # the same functions under a name that ranks accept; `LEAD` loads them
ROOT = Path(__file__).parents[2]

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
ENGINES = ["here", "workers", "ranks", pytest.param("ray", marks=[needs_ray, pytest.mark.slow])]


def task(function: str, output: Path, **arguments: Any) -> Task:
    return Task(f"{MADE}:{function}", arguments, output)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    blocks = {
        "here": None,
        "workers": {"use": "local", "workers": 2},
        "ray": {"use": "ray", "workers": 2, "retries": 1},
        "ranks": {"use": "ranks", "rank": 0, "world": 1, "folder": str(tmp_path_factory.mktemp("ranks"))},
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


@settings(max_examples=4, deadline=None)
@given(
    texts=st.lists(st.text(max_size=20), max_size=9),
    workers=st.integers(0, 4),
    there=st.sets(st.integers(0, 8)),
)
def test_any_number_of_workers_gives_the_same_bytes(texts: list[str], workers: int, there: set[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for engine, place in ((LocalEngine(), folder / "one"), (LocalEngine(workers=workers), folder / "many")):
            tasks = [task("write", place / str(n), text=text) for n, text in enumerate(texts)]
            for number in there & set(range(len(texts))):
                made_tasks.write(texts[number], place / str(number))
            engine.run("writing", tasks)
        assert files(folder / "one") == files(folder / "many")
        assert len(files(folder / "one")) == len(texts)


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


ALONE = """
import sys
from pathlib import Path
from bunny.core.types import Task
from bunny.curate.engines import make_engine
folder, workers = Path(sys.argv[1]), int(sys.argv[2])
linger = "tests.curate.made_tasks:linger"
tasks = [Task(linger, {"started": str(folder / f"started-{n}")}, folder / "out" / f"{n}") for n in range(2)]
make_engine({"use": "local", "workers": workers}).run("long", tasks)
"""


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.communicate()


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(*paths: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not all(path.exists() and path.stat().st_size for path in paths):
        assert time.monotonic() < end, f"{paths} did not come"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGKILL, 2)])
def test_a_stopped_run_leaves_only_whole_outputs_and_no_process(tmp_path: Path, how: int, workers: int) -> None:
    process = start(ALONE, tmp_path, workers)
    signs = [tmp_path / f"started-{n}" for n in range(workers)]
    wait_for(*signs)
    process.send_signal(how)
    process.communicate(timeout=20)
    end = time.monotonic() + 10
    while not all(gone(int(sign.read_text())) for sign in signs):
        assert time.monotonic() < end
        time.sleep(0.02)
    left = files(tmp_path / "out")
    assert not [name for name in left if not name.startswith(".")]
    if how != signal.SIGKILL:
        assert left == {} and process.returncode != 0


LEAD = """
import importlib.util, sys, json
spec = importlib.util.spec_from_file_location("bunny.made_tasks", "tests/curate/made_tasks.py")
sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[spec.name])
from bunny.core.types import Task
from pathlib import Path
from bunny.curate.engines import leading, make_engine
engine = make_engine(json.loads(sys.argv[1]))
with leading(engine) as leads:
    if leads:
        for name, tasks in json.loads(sys.argv[2]):
            engine.run(name, [Task(f, a, Path(o)) for f, a, o in tasks])
"""


def rank(folder: Path, number: int, lists: Any = (), world: int = 2, silent: float = 6.0) -> subprocess.Popen[str]:
    block = {"use": "ranks", "rank": number, "world": world, "folder": str(folder), "silent_seconds": silent}
    return start(LEAD, json.dumps(block), json.dumps(lists))


def written(folder: Path, count: int, seconds: float = 0.0) -> list[Any]:
    return [[f"{INSIDE}:write", {"text": str(n), "seconds": seconds}, str(folder / str(n))] for n in range(count)]


def ended(*processes: subprocess.Popen[str], seconds: float = 60) -> list[str]:
    """What each said on standard error; all have ended well."""
    said = [process.communicate(timeout=seconds)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


@pytest.mark.slow
def test_two_ranks_share_several_lists(tmp_path: Path) -> None:
    who = [[f"{INSIDE}:process", {}, str(tmp_path / "who" / str(n))] for n in range(6)]
    lists = [["first", who], ["second", written(tmp_path / "out", 5)]]
    ended(rank(tmp_path / "ranks", 1), rank(tmp_path / "ranks", 0, lists))
    by = [(tmp_path / "who" / str(n)).read_text() for n in range(6)]
    assert by[0] == by[2] == by[4] != by[1] == by[3] == by[5]
    assert files(tmp_path / "out") == {str(n): str(n).encode() for n in range(5)}


def test_the_parts_of_a_killed_rank_are_made_by_the_others(tmp_path: Path) -> None:
    tasks = written(tmp_path / "out", 8)
    sign = [f"{INSIDE}:die", {"times": str(tmp_path / "times"), "count": 1}, str(tmp_path / "out" / "1")]
    tasks[1] = sign  # the first of rank 1's share kills it
    leader, other = rank(tmp_path / "ranks", 0, [["only", tasks]], silent=2.0), rank(tmp_path / "ranks", 1, silent=2.0)
    ended(leader)
    other.communicate(timeout=10)
    assert other.returncode == -signal.SIGKILL
    made = files(tmp_path / "out")
    assert made.pop("1") == b"survived 1"
    assert {name: made[name] for name in map(str, (0, *range(2, 8)))} == {
        str(n): str(n).encode() for n in (0, *range(2, 8))
    }


@pytest.mark.slow
def test_rank_0_does_not_wait_for_ranks_that_never_come(tmp_path: Path) -> None:
    ended(rank(tmp_path / "ranks", 0, [["only", written(tmp_path / "out", 5)]], world=3, silent=0.5))
    assert files(tmp_path / "out") == {str(n): str(n).encode() for n in range(5)}


def test_a_rank_that_hangs_with_a_beating_heart_is_not_waited_for(tmp_path: Path) -> None:
    tasks = [task("write", tmp_path / "out" / str(n), text=str(n)) for n in range(4)]
    engine = RankEngine(folder=tmp_path / "ranks", rank=0, world=2, silent_seconds=2, stuck_seconds=1.0)
    with leading(engine), engine._board.beating(1, 0.1):  # type: ignore[union-attr]  # inside a session there is one
        engine.run("only", tasks)
    assert files(tmp_path / "out") == {str(n): str(n).encode() for n in range(4)}


@pytest.mark.slow
def test_a_killed_rank_0_is_started_again_and_the_others_stay(tmp_path: Path) -> None:
    lists = [["first", written(tmp_path / "out", 4)], ["second", written(tmp_path / "more", 6, 0.3)]]
    other, leader = rank(tmp_path / "ranks", 1), rank(tmp_path / "ranks", 0, lists)
    wait_for(tmp_path / "more" / "0")
    leader.kill()
    leader.communicate()
    stamp = (tmp_path / "out" / "0").stat().st_mtime_ns
    ended(rank(tmp_path / "ranks", 0, lists), other)
    assert (tmp_path / "out" / "0").stat().st_mtime_ns == stamp
    assert files(tmp_path / "more") == {str(n): str(n).encode() for n in range(6)}


@pytest.mark.slow
def test_the_error_of_another_rank_is_told_by_all(tmp_path: Path) -> None:
    tasks = written(tmp_path / "out", 4)
    tasks[1] = [f"{INSIDE}:refuse", {"what": "a torn shard"}, str(tmp_path / "out" / "1")]
    leader, other = rank(tmp_path / "ranks", 0, [["only", tasks]]), rank(tmp_path / "ranks", 1)
    for process in (leader, other):
        assert "a torn shard" in process.communicate(timeout=60)[1]
        assert process.returncode == 1
    assert sorted(files(tmp_path / "out")) == ["0", "2", "3"]


@pytest.mark.parametrize(
    "function",
    ["os:system", "bunny.core.store:fingerprint_files.__call__", "bunny.curate.engines.local:ended_by_signal"],
)
def test_a_list_may_name_only_functions_of_this_package(tmp_path: Path, function: str) -> None:
    with leading(engine := RankEngine(folder=tmp_path, rank=0, world=1)):
        board = engine._board
        assert board
        number = board.publish("evil", [0], [Task(function, {}, tmp_path / "out")])
        with pytest.raises(UserError, match=r"functions of `bunny` only|not a function of that module|cannot be found"):
            board.listed(number)


def test_ranks_come_from_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = {"use": "ranks", "folder": str(tmp_path)}
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="rank and world are not known"):
        make_engine(block)
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert (made := make_engine(block)) and (made.rank, made.world) == (1, 4)  # type: ignore[attr-defined]  # RankEngine
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "64")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "64")
    with pytest.raises(UserError, match=r"rank 64 of 64: ranks go from 0 on \(SLURM: --array=0-63\)"):
        make_engine(block)


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
    code = (
        "from pathlib import Path; from bunny.core.types import Task; from bunny.curate.engines import make_engine;"
        f"make_engine({{'use': 'ray', 'address': {address!r}}}).run('far', [Task('os:getcwd', {{}}, Path('/nowhere'))])"
    )
    process = start(code)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and f"Ray cluster {address}: cannot be reached" in said, said
