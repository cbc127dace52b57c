"""Whatever is sent: a clear refusal, never a failure of the server, and the server answers afterwards.

How much memory it takes is measured by bench/hostile.py (docs/serve.md has the figures).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bunny.serve.app import Rules
from bunny.serve.fetch import Fetcher
from bunny.serve.limits import Limits
from bunny.serve.media import MediaFolder
from bunny.serve.pictures import Pictures
from tests.serve import hostile
from tests.serve.sending import ask, send
from tests.serve.stub import Stub, served

GROUPS = (hostile.bodies, hostile.types, hostile.sizes, hostile.kinds, hostile.pictures)
MORE = (hostile.addresses, hostile.names, hostile.http)


async def nowhere(host: str, port: int) -> list[str]:
    """The resolver: what a name of a stranger's could lead to."""
    return ["127.0.0.1"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    limits = Limits(head_seconds=1, idle_seconds=0, body_pause_seconds=0.5)
    root = hostile.media_folder(tmp_path_factory.mktemp("hostile"))
    fetcher = Fetcher(("pictures.test",), limits, resolver=nowhere)
    with served(Stub(), rules=Rules(limits=limits, pictures=Pictures(limits, fetcher, MediaFolder(root)))) as found:
        yield found


@pytest.mark.parametrize("group", [*GROUPS, *MORE], ids=lambda group: group.__name__)
def test_what_strangers_send_is_refused_and_never_breaks_the_server(
    address: str, group: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "bunny")
    wrong = []
    cases: Sequence[hostile.Case] = list(group())  # type: ignore[operator]
    for case in cases:
        status, _, body = send(address, case)
        if status not in case.statuses or (status >= 400 and not case.raw and case.method != "HEAD" and not told(body)):
            wrong.append(f"{case.name}: {status} {body[:200]!r}")
    assert wrong == []
    assert len(cases) > 5
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    status, said = ask(address, hostile.question("still there?"))
    assert (status, said["choices"][0]["message"]["content"]) == (200, "1 turns, : still there?")


def told(body: bytes) -> bool:
    """Whether an error is in OpenAI's form."""
    error = json.loads(body)["error"]
    return set(error) == {"message", "type", "param", "code"} and bool(error["message"]) and bool(error["type"])


def test_a_good_picture_of_the_media_folder_is_read(address: str) -> None:
    status, said = ask(address, hostile.shown("good.png"))
    assert (status, said["choices"][0]["message"]["content"]) == (200, "1 turns, 4x4: <image>\nwhat?")


def test_a_picture_of_the_media_folder_is_read_by_its_whole_name(tmp_path: Path) -> None:
    folder = hostile.media_folder(tmp_path)
    assert MediaFolder(folder).read(f"file://{folder}/good.png", 1000) == hostile.png(4, 4)
