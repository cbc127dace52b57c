"""The page that a browser gets at `/`, what it has to know, and the folders it links to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp

from bunny.core.errors import UserError
from bunny.serve.failures import FRESH, ApiError
from bunny.serve.limits import Limits
from bunny.serve.service import Service

PAGE = files("bunny.serve").joinpath("page_chat")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
REPORTS = ("compare.html", "report.html")
ALONE = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts allow-downloads"
)
"""A report brings its own script: it runs apart from everything else here, and can ask for nothing."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder that the page links to. title: of the link; name: its place in addresses; app: what shows it."""

    title: str
    name: str
    app: ASGIApp


def reports(folder: Path) -> Shelf:
    """The reports of an evaluation or a comparison. Raises UserError if the folder holds none."""
    found = {path.name: path for path in (folder / name for name in REPORTS) if path.is_file()}
    if not found:
        raise UserError(
            f"{folder}: no {' or '.join(REPORTS)}", fix="name a folder that `bunny eval compare --out` made"
        )

    def show(request: Request) -> Response:
        path = found.get(request.path_params.get("name") or next(iter(found)))
        if path is None:
            raise ApiError(404, "there is no such report")
        return FileResponse(path, media_type="text/html", headers={**FRESH, "content-security-policy": ALONE})

    routes = [Route("/", show), Route("/{name}", show)]
    return Shelf("Evaluation", "evaluation", Router(routes, redirect_slashes=False))


def page_routes(service: Service, shelves: Sequence[Shelf], limits: Limits, key_needed: bool) -> list[Route | Mount]:
    """Everything a browser sees. Its files are compared by name, never joined to a path."""

    def config(request: Request) -> Response:
        content = {
            "models": list(service.names),
            "links": [{"title": shelf.title, "href": f"{quote(shelf.name)}/"} for shelf in shelves],
            "key_needed": key_needed,
            "limits": {
                "pictures": limits.pictures,
                "picture_bytes": limits.picture_bytes,
                "picture_pixels": limits.picture_pixels,
                "body_bytes": limits.body_bytes,
                "max_tokens": limits.tokens,
            },
        }
        return JSONResponse(content, headers=FRESH)

    def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        known = {item.name for item in PAGE.iterdir() if Path(item.name).suffix in KINDS}
        if name not in known:
            raise ApiError(404, "there is nothing at this address")
        data = PAGE.joinpath(name).read_bytes()
        return Response(data, media_type=KINDS[Path(name).suffix], headers={"cache-control": "no-cache"})

    mounts = [Mount(f"/{shelf.name}", shelf.app) for shelf in shelves]
    return [Route("/page/config.json", config), *mounts, Route("/", file), Route("/{name}", file)]
