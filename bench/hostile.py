"""What strangers send (tests/serve/hostile.py), counted: answers, and the memory that the server takes for them.

    python bench/hostile.py --json > bench/results/hostile.json

The server is a process of its own on this machine, with a stub in place of the model, so that its memory is the
server's alone (Linux: VmRSS and VmHWM of /proc). Every case
is sent once; then bombs and bad bodies by 16 clients at once; then the largest pictures that are allowed; then 200
connections that send half a request and wait. After each group it must answer a question.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.serve import hostile  # noqa: E402
from tests.serve.sending import ask, send  # noqa: E402

GROUPS = ("bodies", "types", "sizes", "kinds", "pictures", "addresses", "names", "http")
CLIENTS, ROUNDS, IDLE = 16, 4, 200


class Forgets(list[Any]):
    """What the stub would remember of every request: nothing, so that the memory is the server's."""

    def append(self, item: Any) -> None:
        return


def serve(root: str) -> None:
    """The server's process: writes its address, serves until it is killed."""
    from tests.serve.stub import Stub
    from tests.serve.test_hostile import nowhere

    from bunny.serve.app import Rules, make_app
    from bunny.serve.curation import listen
    from bunny.serve.fetch import Fetcher
    from bunny.serve.limits import Limits
    from bunny.serve.media import MediaFolder
    from bunny.serve.pictures import Pictures
    from bunny.serve.running import Running
    from bunny.serve.service import Service

    limits = Limits(head_seconds=2, idle_seconds=1, body_pause_seconds=2)
    pictures = Pictures(limits, Fetcher(("pictures.test",), limits, resolver=nowhere), MediaFolder(Path(root)))
    service = Service(["stub"], limits.requests)
    stub = Stub()
    stub.asked, stub.tickets = Forgets(), Forgets()
    listening = listen("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    app = make_app(service, Rules(limits=limits, pictures=pictures))
    Running(app, service, lambda service: service.opened(stub), limits, 1).serve_until_told(listening)


def measure(address: str, process: int) -> dict[str, Any]:
    """Answers and memory of every group."""
    for _ in range(3):  # what the first requests load is no growth
        ask(address, hostile.shown(hostile.data_url(hostile.png(100, 100))))
    start = memory(process)["VmRSS"]
    groups = []
    for name in GROUPS:
        cases = list(getattr(hostile, name)())
        groups.append(group(address, process, name, lambda cases=cases: [send(address, case)[0] for case in cases]))
    bombs = [case for case in hostile.pictures() if case.group == "bombs"]
    heavy = [*bombs, *hostile.bodies(), *hostile.sizes()] * ROUNDS

    def together() -> list[int]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return [status for status, _, _ in pool.map(lambda case: send(address, case), heavy)]

    groups.append(group(address, process, f"bombs, {CLIENTS} at once", together))
    large = hostile.shown(hostile.data_url(hostile.png(6000, 4000, real=False)))  # as large as one may be, 3 KB
    allowed = [hostile.Case("", "", hostile.as_bytes(large))] * (CLIENTS * ROUNDS)

    def decoded() -> list[int]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return [status for status, _, _ in pool.map(lambda case: send(address, case), allowed)]

    groups.append(group(address, process, f"pictures of 24 megapixels, {CLIENTS} at once", decoded))
    half = hostile.Case("", "", raw=f"POST {hostile.CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ".encode())

    def waiting() -> list[int]:
        with ThreadPoolExecutor(IDLE) as pool:
            return [status for status, _, _ in pool.map(lambda _: send(address, half), range(IDLE))]

    groups.append(group(address, process, f"{IDLE} half requests at once", waiting))
    peak, end = memory(process)["VmHWM"], memory(process)["VmRSS"]
    return {
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "commit": commit(),
        "start_mb": start,
        "peak_mb": peak,
        "end_mb": end,
        "groups": groups,
    }


def group(address: str, process: int, name: str, run: Callable[[], list[int]]) -> dict[str, Any]:
    started = time.monotonic()
    statuses = Counter(run())
    status, _ = ask(address, hostile.question("still there?"))
    return {
        "group": name,
        "cases": sum(statuses.values()),
        "statuses": {str(status or "closed"): count for status, count in sorted(statuses.items())},
        "failures": sum(count for status, count in statuses.items() if status >= 500),
        "answers_after": status == 200,
        "seconds": round(time.monotonic() - started, 1),
        "peak_mb": memory(process)["VmHWM"],
    }


def memory(process: int) -> dict[str, int]:
    """MB of a process, now and at most."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) // 1000 for line in lines if line.startswith(("VmRSS", "VmHWM"))}


def commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def show(found: dict[str, Any]) -> None:
    print("| group | cases | answers | 5xx | answers after | s | peak MB |\n|---|---:|---|---:|---|---:|---:|")
    for one in found["groups"]:
        answers = ", ".join(f"{status}: {count}" for status, count in one["statuses"].items())
        after = "yes" if one["answers_after"] else "no"
        print(f"| {one['group']} | {one['cases']} | {answers} | {one['failures']} | {after} ", end="")
        print(f"| {one['seconds']} | {one['peak_mb']} |")
    print(f"\n{found['start_mb']} MB at the start, {found['peak_mb']} at most, {found['end_mb']} at the end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.serve:
        return serve(words.serve)
    with tempfile.TemporaryDirectory() as folder:
        root = hostile.media_folder(Path(folder))
        command = [sys.executable, __file__, "--serve", str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                found = measure(f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid)
            finally:
                process.kill()
    return print(json.dumps(found, indent=1)) if words.json else show(found)


if __name__ == "__main__":
    main()
