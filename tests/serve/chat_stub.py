"""A server for the chat page whose answers the test chooses: by what the question says, or by `plan`.

It serves the page's own files behind the same guard and the same Content-Security-Policy as the real one.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bunny.serve.guarding import Guarded

PAGE = str(files("bunny.serve").joinpath("page_chat"))


class Stub:
    """What the page was asked, and how it is answered.

    plan: for the next requests, in order: pieces of text; a number is a status; "break" ends the stream in the middle,
    "wait" waits for `gate`, "length" ends it as too long. Without a plan the answer repeats the question.
    """

    def __init__(self, **config: Any) -> None:
        self.config = {"models": ["tiny"], "links": [], "key_needed": False, "limits": {}, **config}
        self.key = ""
        self.plan: list[list[str | int]] = []
        self.asked: list[dict[str, Any]] = []
        self.gate = threading.Event()
        self.left = threading.Event()

    def app(self) -> Guarded:
        routes = [
            Route("/page/config.json", lambda request: JSONResponse(self.config)),
            Route("/v1/chat/completions", self.answer, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ]
        return Guarded(Starlette(routes=routes), "127.0.0.1")

    async def answer(self, request: Request) -> Response:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return refused(401, "wrong key")
        body = await request.json()
        self.asked.append(body)
        pieces = self.plan.pop(0) if self.plan else [body["model"], ": ", words_of(body["messages"][-1])]
        if isinstance(pieces[0], int):
            return refused(pieces[0], str(pieces[1]) if len(pieces) > 1 else "")
        return StreamingResponse(self.stream(pieces), media_type="text/event-stream")

    async def stream(self, pieces: list[str | int]) -> AsyncIterator[str]:
        reason, said = "stop", 0
        try:
            for piece in pieces:
                if piece == "wait":
                    while not self.gate.is_set():
                        await asyncio.sleep(0.005)
                elif piece == "break":
                    return
                elif piece == "length":
                    reason = "length"
                else:
                    said += 1
                    yield event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
            yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
            yield event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": said, "total_tokens": 0}})
            yield "data: [DONE]\n\n"
        finally:
            self.left.set()


def event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def refused(status: int, message: str) -> Response:
    headers = {"retry-after": "1"} if status == 429 else {}
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status, headers)


def words_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "[picture]") for part in content)
