"""What went wrong, in OpenAI's form: `{"error": {"message", "type", "param", "code"}}` with the right status."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from starlette.responses import JSONResponse

FRESH = {"cache-control": "no-store"}
KINDS = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is answered with an error. param: the field of the request that is to blame; code: for programs.

    retry_after_seconds: when to come again (429, 503). headers: more of the answer's.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after_seconds)))

    @property
    def content(self) -> dict[str, object]:
        """The JSON that tells it."""
        kind = KINDS.get(self.status) or ("server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer. One to a request whose body was not read to its end closes the connection."""
        closing = {"connection": "close"} if self.status in (408, 413) else {}
        return JSONResponse(self.content, self.status, {**FRESH, **closing, **self.headers})


def event(content: object) -> bytes:
    """A server-sent event of a JSON value, or of a word as it is."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode("utf-8", "replace")  # an answer cut inside a letter has no UTF-8 there
