"""A request's body: read no further than the limits, however it is sent, and understood as strict JSON."""

from __future__ import annotations

from typing import Any

import anyio
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

from bunny.serve import strict_json
from bunny.serve.budget import Share
from bunny.serve.failures import ApiError
from bunny.serve.limits import Limits

INLINE_BYTES = 64 << 10  # a body up to this is understood at once, a larger one in a thread


async def read_object(request: Request, limits: Limits, share: Share) -> dict[str, Any]:
    """The JSON object of a request. Raises ApiError 400, 408, 413, 415, 429, and ClientDisconnect.

    share: holds the body's bytes; the one who asks gives them back when the object is gone.
    """
    _check_kind(request, limits)
    data = await _read(request, limits, share)
    try:
        if len(data) <= INLINE_BYTES:
            tree = strict_json.read(data, limits.json_depth, limits.json_values)
        else:
            tree = await to_thread.run_sync(strict_json.read, data, limits.json_depth, limits.json_values)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(tree, dict):
        raise ApiError(400, "the body is not a JSON object", code="invalid_json")
    return tree


def _check_kind(request: Request, limits: Limits) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the body must be application/json", code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ApiError(415, "compressed bodies are not read", code="unsupported_media_type")
    promised = request.headers.get("content-length", "")
    if promised.isdecimal() and (len(promised) > 15 or int(promised) > limits.body_bytes):
        raise _too_large(limits)


async def _read(request: Request, limits: Limits, share: Share) -> bytearray:
    data = bytearray()  # not a list: a body in pieces of two bytes would take thirty times its size
    try:
        with anyio.fail_after(limits.body_seconds):
            while True:
                with anyio.fail_after(limits.body_pause_seconds):
                    message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                piece = message.get("body", b"")
                if len(data) + len(piece) > limits.body_bytes:
                    raise _too_large(limits)
                share.take(len(piece))
                data += piece
                if not message.get("more_body", False):
                    return data
    except TimeoutError:
        raise ApiError(408, "the body came too slowly", code="body_timeout") from None


def _too_large(limits: Limits) -> ApiError:
    return ApiError(413, f"the body is larger than {limits.body_bytes >> 20} MiB", code="request_too_large")
