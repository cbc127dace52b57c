"""A run folder in, an explorer out: the table, the pool behind it, and what happens if either is not there."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from bunny.core.errors import UserError
from bunny.core.types import Embedded, ImageRef, Sample
from bunny.curate import curate
from bunny.data.images import open_image
from bunny.pipeline.view import OVERRIDES, explorer_of
from bunny.serve import curation


class Colours:
    name, dim = "mean colour", 3

    def embed(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Embedded:
        image = np.array([picture.mean((0, 1)) for picture in pictures])
        return Embedded(image, np.ones_like(image))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Six pictures, of which f is a copy of b; g cannot be read."""
    samples = []
    for number, id in enumerate("fabcdeg"):
        path = tmp_path / f"{id}.png"
        shade = 40 * (2 if id == "f" else number)
        Image.new("RGB", (9, 9), (shade, 10, 250 - shade)).save(path)
        samples.append(Sample.pair(id, ImageRef(str(path)), f"picture {id}", source="made up"))
    (tmp_path / "g.png").write_bytes(b"no picture")
    folder = tmp_path / "run"
    steps = [{"use": "exact"}]
    curate(
        samples, [], Colours(), steps, seed=0, folder=folder / "curated", open_image=open_image, vectors=folder / "pool"
    )
    return folder


def test_a_run_is_opened_with_its_pictures_in_the_order_of_its_table(run: Path) -> None:
    explorer = explorer_of(run)
    rows = explorer.window({}, 0, 100)["rows"]
    assert [row["id"] for row in rows] == ["a", "b", "c", "d", "e", "f", "g"]
    for row in rows[:-1]:
        sample = explorer.picture(row["row"])
        assert sample is not None and sample.images[0].path.endswith(f"{row['id']}.png")
    assert (rows[-1]["step"], rows[-1]["picture"]) == ("reading", False)
    copy = explorer.sample(5)
    assert copy["twin"]["id"] == "b"
    assert copy["neighbours"][0]["id"] == "b" and copy["neighbours"][0]["cosine"] == pytest.approx(1, abs=1e-3)
    assert len(explorer.places()[0]) == 6


def test_second_thoughts_lie_beside_the_curated_folder_and_outlive_it(run: Path) -> None:
    explorer_of(run).override(5, True, "two of them")
    assert (run / OVERRIDES).is_file()
    assert explorer_of(run / "curated").sample(5)["note"] == "two of them"


def test_without_its_pool_the_table_can_still_be_looked_at(run: Path) -> None:
    shutil.rmtree(run / "pool")
    explorer = explorer_of(run)
    assert explorer.pool is None and explorer.about()["rows"] == 7 and not explorer.about()["map"]


def test_a_pool_of_other_samples_is_not_shown(run: Path, tmp_path: Path) -> None:
    others = [Sample.pair(f"x{n}", ImageRef(str(tmp_path / "a.png")), "other") for n in range(3)]
    shutil.rmtree(run / "pool")
    new = tmp_path / "new"
    curate(others, [], Colours(), [{"use": "exact"}], seed=0, folder=new, open_image=open_image, vectors=run / "pool")
    assert explorer_of(run).pool is None


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished curation there"):
        explorer_of(tmp_path)


def test_the_server_answers_on_a_free_port_of_this_machine_without_delay(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uvicorn

    started: list[uvicorn.Server] = []
    told = threading.Event()
    address: list[str] = []
    real = uvicorn.Server.run

    def watched(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        assert sockets and sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        host, port = sockets[0].getsockname()[:2]
        address.append(f"http://{host}:{port}")
        started.append(self)
        told.set()
        real(self, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", watched)
    thread = threading.Thread(target=curation.serve, args=(explorer_of(run), "127.0.0.1", 0, False))
    thread.start()
    assert told.wait(10)
    try:
        assert address[0].startswith("http://127.0.0.1:")
        with httpx.Client(base_url=address[0], transport=httpx.HTTPTransport(retries=5)) as client:
            assert client.get("/api/about").json()["rows"] == 7
            assert client.get("/", headers={"host": "evil.example"}).status_code == 403
    finally:
        started[0].should_exit = True
        thread.join()


def test_a_port_that_is_taken_is_told(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="another --port"):
        curation.serve(explorer_of(run), "127.0.0.1", taken.getsockname()[1], False)
