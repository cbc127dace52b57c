"""The curation explorer on the web: an `Explorer` (see `bunny.curate.explore`) in; JSON, thumbnails and a page out.

Pictures are served for rows of the table only; no path ever comes from an address.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import BoolArray, FloatArray, IntArray, Sample
from bunny.data.images import open_image
from bunny.serve.guarding import Guarded, is_loopback
from bunny.serve.page import Shelf
from bunny.serve.thumbnails import Thumbnails

PAGE = files("bunny.serve").joinpath("page_curation")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SIDES = {"small": 192, "large": 1024}  # pixels
MOST_BODY = 4 << 20  # bytes of a request: a lasso around 20,000 points is 140 KB
FRESH = {"cache-control": "no-store"}


class Data(Protocol):
    """What the page asks for; `bunny.curate.explore.Explorer` answers."""

    def warm(self) -> None: ...
    def about(self) -> Mapping[str, Any]: ...
    def window(self, words: Mapping[str, str], start: int, count: int) -> Mapping[str, Any]: ...
    def counts(self, words: Mapping[str, str]) -> Mapping[str, Any]: ...
    def select(self, rows: IntArray) -> str: ...
    def clusters(self, start: int, count: int, by: str) -> Mapping[str, Any]: ...
    def duplicates(self, start: int, count: int, by: str, cluster: int | None = None) -> Mapping[str, Any]: ...
    def sample(self, row: int) -> Mapping[str, Any]: ...
    def brief(self, row: int) -> Mapping[str, Any]: ...
    def row_of(self, id: str) -> int: ...
    def thresholds(self) -> Mapping[str, Any]: ...
    def threshold(self, value: float) -> Mapping[str, Any]: ...
    def override(self, row: int, keep: bool | None, note: str) -> Mapping[str, Any]: ...
    def places(self) -> tuple[IntArray, FloatArray]: ...
    def fates(self, rows: IntArray) -> tuple[BoolArray, IntArray, IntArray]: ...
    def picture(self, row: int) -> Sample | None: ...
    def ids(self, words: Mapping[str, str]) -> Iterator[str]: ...
    def write_table(self, path: Path) -> None: ...


def serve(data: Data, host: str = "127.0.0.1", port: int = 0, browser: bool = True) -> None:
    """Serve the page until interrupted. port 0: a free one. Raises UserError if the address cannot be had."""
    import uvicorn

    listening = listen(host, port)
    number = listening.getsockname()[1]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{number}/"
    if not is_loopback(host):
        log.warning("everybody who can reach this machine can see these pictures and change decisions")
    log.info("explorer at %s (Ctrl-C ends it)", address)
    if browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    threading.Thread(target=data.warm, daemon=True).start()
    with listening:
        server = uvicorn.Server(
            uvicorn.Config(make_app(data, host), log_level="warning", access_log=False, lifespan="off")
        )
        server.run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError if the address cannot be had."""
    try:
        found = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}", fix="give another --port") from None
    found.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # without it, every answer waits 40 ms for the other side
    return found


def make_app(data: Data, bound: str = "127.0.0.1") -> Guarded:
    """The application; bound: the address that it will listen on."""
    return Guarded(_explorer(data), bound)


def shelf(data: Data) -> Shelf:
    """The explorer as a part of another server, which guards it."""
    threading.Thread(target=data.warm, daemon=True).start()
    return Shelf("Curation", "curation", _explorer(data))


def _explorer(data: Data) -> Starlette:
    def picture_of(row: int, side: int) -> Any:
        sample = data.picture(row)
        return open_image(sample.images[0], at_least=side) if sample and sample.images else None

    thumbnails = Thumbnails(picture_of)

    def route(path: str, answer: Callable[[Request], Any]) -> Route:
        def endpoint(request: Request) -> Response:  # a plain function: Starlette runs it in a thread of its own
            found = answer(request)
            return found if isinstance(found, Response) else JSONResponse(found, headers=FRESH)

        return Route(path, endpoint)

    def words(request: Request) -> Mapping[str, str]:
        return dict(request.query_params)

    def page(request: Request) -> tuple[int, int, str]:
        return _whole(request, "start", 0), _whole(request, "count", 60), request.query_params.get("by", "size")

    def cluster(request: Request) -> int | None:
        return _whole(request, "cluster", 0) if request.query_params.get("cluster") else None

    def picture(request: Request) -> Response:
        found = thumbnails.get(request.path_params["row"], SIDES.get(request.query_params.get("size", ""), 192))
        if found is None:
            return PlainTextResponse("no picture", 404, FRESH)
        return Response(found, media_type="image/webp", headers={"cache-control": "private, max-age=86400"})

    routes = [
        Route("/", _file("index.html")),
        Route("/page/{name}", _page_file),
        route("/api/about", lambda request: data.about()),
        route("/api/rows", lambda r: data.window(words(r), _whole(r, "start", 0), _whole(r, "count", 100))),
        route("/api/counts", lambda request: data.counts(words(request))),
        route("/api/clusters", lambda request: data.clusters(*page(request))),
        route("/api/duplicates", lambda request: data.duplicates(*page(request), cluster(request))),
        route("/api/sample/{row:int}", lambda request: data.sample(request.path_params["row"])),
        route("/api/brief/{row:int}", lambda request: data.brief(request.path_params["row"])),
        route("/api/find", lambda request: {"row": data.row_of(request.query_params.get("id", ""))}),
        route("/api/thresholds", lambda request: data.thresholds()),
        route("/api/threshold", lambda request: data.threshold(_fraction(request, "at"))),
        route("/api/map", lambda request: _map(data)),
        route("/picture/{row:int}", picture),
        route("/export/ids.txt", lambda request: _ids(data, words(request))),
        route("/export/decisions.parquet", lambda request: _table(data)),
        Route("/api/selection", _posted(lambda body: {"selection": data.select(_rows(body))}), methods=["POST"]),
        Route("/api/override", _posted(lambda body: data.override(*_thought(body))), methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={UserError: _told, HTTPException: _refused})


def _posted(answer: Callable[[Any], Mapping[str, Any]]) -> Callable[[Request], Any]:
    """An endpoint that reads a JSON object."""

    async def endpoint(request: Request) -> Response:
        data = b""
        async for piece in request.stream():
            data += piece
            if len(data) > MOST_BODY:
                raise HTTPException(413, "too large")
        try:
            body = json.loads(data)
        except ValueError:
            raise HTTPException(400, "not JSON") from None
        if not isinstance(body, dict):
            raise HTTPException(400, "not an object")
        return JSONResponse(await run_in_threadpool(answer, body), headers=FRESH)

    return endpoint


def _map(data: Data) -> Response:
    """(4 + n * 17) bytes, little-endian: n, then n int32 rows, float32 x, float32 y, int32 clusters, uint8 of which
    bit 0 is kept and the others the number of the step."""
    rows, places = data.places()
    kept, cluster, step = data.fates(rows)
    parts = [
        np.array([len(rows)], "<u4"),
        rows.astype("<i4"),
        places[:, 0].astype("<f4"),
        places[:, 1].astype("<f4"),
        cluster.astype("<i4"),
        (kept.astype(np.uint8) | (step.astype(np.uint8) << 1)).astype("u1"),
    ]
    return Response(b"".join(part.tobytes() for part in parts), media_type="application/octet-stream", headers=FRESH)


def _ids(data: Data, words: Mapping[str, str]) -> Response:
    lines = (f"{id}\n" for id in data.ids(words))
    headers = {**FRESH, "content-disposition": 'attachment; filename="ids.txt"'}
    return StreamingResponse(lines, media_type="text/plain; charset=utf-8", headers=headers)


def _table(data: Data) -> Response:
    with tempfile.NamedTemporaryFile(suffix=".parquet", delete=False) as file:
        path = Path(file.name)
    data.write_table(path)
    gone = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, filename="decisions.parquet", headers=FRESH, background=gone)


def _file(name: str) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:
        kind = KINDS[Path(name).suffix]
        return Response(PAGE.joinpath(name).read_bytes(), media_type=kind, headers={"cache-control": "no-cache"})

    return endpoint


def _page_file(request: Request) -> Response:
    """One of the page's own files, by a name that is compared, never joined to a path."""
    names = {item.name for item in PAGE.iterdir() if Path(item.name).suffix in KINDS}
    if request.path_params["name"] not in names:
        raise HTTPException(404, "no such file")
    return _file(request.path_params["name"])(request)


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "") or str(default)
    if not text.isdecimal() or len(text) > 12:
        raise HTTPException(400, f"{name} is a whole number")
    return int(text)


def _fraction(request: Request, name: str) -> float:
    try:
        value = float(request.query_params.get(name, ""))
    except ValueError:
        raise HTTPException(400, f"{name} is a number") from None
    if not -1 <= value <= 1:
        raise HTTPException(400, f"{name} lies between -1 and 1")
    return value


def _rows(body: Mapping[str, Any]) -> IntArray:
    rows = body.get("rows")
    if not isinstance(rows, list) or not all(type(row) is int and 0 <= row < 1 << 40 for row in rows):
        raise HTTPException(400, "rows is a list of whole numbers")
    return np.array(rows, dtype=np.int64)


def _thought(body: Mapping[str, Any]) -> tuple[int, bool | None, str]:
    row, keep, note = body.get("row"), body.get("keep"), body.get("note", "")
    if type(row) is not int or not (keep is None or isinstance(keep, bool)) or not isinstance(note, str):
        raise HTTPException(400, "row is a whole number, keep is true, false or null, note is a text")
    return row, keep, note


async def _told(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 404, headers=FRESH)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=FRESH)
