"""The server as an ASGI app: the addresses, and what stands behind each. Engines in; answers out.

Everything under `/v1`, and the figures, want a key where there is one; the page's files, the state and the description
of the API do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router, request_response

import bunny
from bunny.serve import openapi
from bunny.serve.access import Access, Door, Keyed
from bunny.serve.completions import Completions
from bunny.serve.failures import FRESH, ApiError
from bunny.serve.limits import Limits
from bunny.serve.metrics import KIND, Metrics
from bunny.serve.page import Shelf, page_routes
from bunny.serve.pictures import Pictures
from bunny.serve.replies import Health, Model, ModelList
from bunny.serve.service import Service


@dataclass(frozen=True, slots=True)
class Rules:
    """What the server allows. pictures: where they may come from; none: `data:` addresses only."""

    access: Access = field(default_factory=Access)
    limits: Limits = field(default_factory=Limits)
    pictures: Pictures | None = None
    shelves: Sequence[Shelf] = ()


def make_app(service: Service, rules: Rules | None = None) -> Door:
    """The application."""
    rules = rules or Rules()
    access, limits, metrics = rules.access, rules.limits, Metrics(service)

    def models(request: Request) -> Response:
        listed = ModelList(object="list", data=[_model(service, name) for name in service.names])
        return JSONResponse(listed.model_dump(), headers=FRESH)

    def model(request: Request) -> Response:
        name = service.known(request.path_params["id"])
        return JSONResponse(_model(service, name).model_dump(), headers=FRESH)

    async def health(request: Request) -> Response:
        return JSONResponse(Health(status=service.state).model_dump(), headers=FRESH)

    async def ready(request: Request) -> Response:
        if service.state != "ok":
            raise ApiError(503, f"the server is {service.state}", code=service.state, retry_after_seconds=5)
        return JSONResponse(Health(status="ok").model_dump(), headers=FRESH)

    def figures(request: Request) -> Response:
        return Response(metrics.text(), headers={**FRESH, "content-type": KIND})

    described = openapi.document(bunny.__version__, bool(access.keys))
    completions = Completions(service, rules.pictures or Pictures(limits), limits, metrics)
    routes = [
        Route("/v1/chat/completions", Keyed(completions, access.keys), methods=["POST"]),
        Route("/v1/models", Keyed(request_response(models), access.keys), methods=["GET"]),
        Route("/v1/models/{id:path}", Keyed(request_response(model), access.keys), methods=["GET"]),
        Route("/metrics", Keyed(request_response(figures), access.keys), methods=["GET"]),
        Route("/health", health),
        Route("/ready", ready),
        Route("/openapi.json", lambda request: JSONResponse(described, headers=FRESH)),
        *page_routes(service, rules.shelves, limits, bool(access.keys)),
    ]
    return Door(Router(routes, redirect_slashes=False), access, metrics)


def _model(service: Service, name: str) -> Model:
    return Model(id=name, object="model", created=service.started, owned_by="bunny")
