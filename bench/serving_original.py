"""The original's way of serving, as small as it can be: what `bench/serving.py` compares with.

    python bench/serving_original.py LLAVA_FOLDER PORT

Written after the behaviour of its `model_worker`: `/worker_generate_stream` takes a prompt and base64 pictures, at most
five requests are under way, each has a thread of its own in transformers' `generate` with a `TextIteratorStreamer`, and
every piece is sent as the whole text so far, in JSON, closed by a NUL byte.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from collections.abc import AsyncIterator, Iterator
from threading import Thread
from typing import Any

import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from transformers import AutoProcessor, LlavaForConditionalGeneration, TextIteratorStreamer

CONCURRENCY = 5


class Worker:
    """A loaded model that answers each request for itself."""

    def __init__(self, folder: str) -> None:
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype="auto").eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.places = asyncio.Semaphore(CONCURRENCY)

    async def handle(self, request: Request) -> StreamingResponse:
        asked = await request.json()
        return StreamingResponse(self._pieces(asked))

    async def _pieces(self, asked: dict[str, Any]) -> AsyncIterator[bytes]:
        async with self.places:
            async for piece in iterate_in_threadpool(self._generate(asked)):
                yield piece

    def _generate(self, asked: dict[str, Any]) -> Iterator[bytes]:
        pictures = [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in asked["images"]]
        inputs = self.processor(images=pictures, text=asked["prompt"], return_tensors="pt")
        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        arguments = dict(inputs, max_new_tokens=asked["max_new_tokens"], do_sample=False, streamer=streamer)
        thread = Thread(target=self._run, args=(arguments,))
        thread.start()
        text = asked["prompt"]
        for piece in streamer:
            text += piece
            yield json.dumps({"text": text, "error_code": 0}).encode() + b"\0"
        thread.join()

    @torch.inference_mode()
    def _run(self, arguments: dict[str, Any]) -> None:
        self.model.generate(**arguments)


async def ready(request: Request) -> Response:
    return PlainTextResponse("ready")


def main() -> None:
    worker = Worker(sys.argv[1])
    routes = [Route("/worker_generate_stream", worker.handle, methods=["POST"]), Route("/health", ready)]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
