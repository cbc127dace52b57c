"""What every test stands on: no model hub, no network, no screen, a log that is as it was afterwards; the goldens."""

from __future__ import annotations

import logging
import os
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anything but this machine fails the test that tries it."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


LOG = logging.getLogger("bunny")
UNTOUCHED = LOG.handlers[:], LOG.propagate, LOG.level


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """Undo what `bunny.core.log.set_up` does, also in a module's fixture, so that `caplog` sees a test's lines."""
    _quiet()
    yield
    _quiet()


def _quiet() -> None:
    LOG.handlers[:], LOG.propagate = UNTOUCHED[0], UNTOUCHED[1]
    LOG.setLevel(UNTOUCHED[2])


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that change what Bunny does are not taken over from the caller, nor from one test to the next."""
    for name in ("BUNNY_DEBUG", "BUNNY_LOG"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


GOLDEN = Path(__file__).parent / "golden" / "parity"


@pytest.fixture(scope="module")
def goldens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original's golden folders, unpacked for one test file."""
    folder = tmp_path_factory.mktemp("parity")
    for path in sorted(GOLDEN.glob("*.tar.xz")):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return folder
