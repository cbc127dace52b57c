"""`POST /v1/chat/completions`: from a request to its answer, whole or as server-sent events.

A client who hangs up ends the work at once, wherever it is. The first piece is awaited before anything is sent, so that
what goes wrong until then has its own status; what goes wrong later is an event with an error in it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from bunny.core.chat import ChatEngine, ChatEvent, ChatRequest, Finished
from bunny.core.types import GenerationSettings
from bunny.serve import forms
from bunny.serve.answer import Answer
from bunny.serve.asking import Events, asked
from bunny.serve.body import read_object
from bunny.serve.budget import Budget, Share
from bunny.serve.conversation import open_pictures, turns_of
from bunny.serve.failures import FRESH, ApiError, event
from bunny.serve.forms import Collected, Head
from bunny.serve.limits import Limits
from bunny.serve.metrics import Metrics
from bunny.serve.pictures import Pictures
from bunny.serve.schema import ChatCompletionRequest, read_request
from bunny.serve.service import Service

SLOW_READER_SECONDS = 10.0  # beyond the answer's own time, until the client has taken it


@dataclass(frozen=True, slots=True)
class Job:
    """A request that has been understood."""

    engine: ChatEngine
    request: ChatRequest
    count: int
    logprobs: bool
    stream: bool
    with_usage: bool


class Completions:
    """The endpoint."""

    def __init__(self, service: Service, pictures: Pictures, limits: Limits, metrics: Metrics) -> None:
        self.service, self.pictures, self.limits, self.metrics = service, pictures, limits, metrics
        self._budget = Budget(limits.held_bytes)
        self._threads = anyio.CapacityLimiter(limits.requests)  # an engine may take its time to accept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = Answer(scope, receive, send)
        try:
            with self.service.entered(), Share(self._budget) as share:
                await self._answered(Request(scope, receive), answer, share)
        except ApiError as error:
            await answer.fail(error)
        except ClientDisconnect:
            return

    async def _answered(self, request: Request, answer: Answer, share: Share) -> None:
        started = time.monotonic()
        tree = await read_object(request, self.limits, share)
        async with answer.while_listened():
            with anyio.move_on_after(self.limits.timeout_seconds + SLOW_READER_SECONDS) as time_left:
                body_bytes = share.held
                job = await self._understood(read_request(tree), share)
                tree.clear()
                share.give(body_bytes)  # the pictures' texts are gone
                async with asked(job.engine, job.request, job.count, self._threads) as events:
                    await self._told(job, events, answer, started)
            if time_left.cancelled_caught:
                raise ApiError(504, "the answer took longer than the server allows", code="timeout")

    async def _understood(self, wanted: ChatCompletionRequest, share: Share) -> Job:
        """The job that a request describes, its pictures decoded. Raises ApiError."""
        engine = self.service.engine(wanted.model)
        limits, count = self.limits, wanted.n or 1
        if count > limits.choices:
            raise ApiError(400, f"n is at most {limits.choices}", param="n", code="invalid_value")
        tokens = wanted.max_completion_tokens or wanted.max_tokens or limits.default_tokens
        if tokens > limits.tokens:
            name = "max_completion_tokens" if wanted.max_completion_tokens else "max_tokens"
            raise ApiError(400, f"{name} is at most {limits.tokens}", param=name, code="invalid_value")
        turns, named = turns_of(wanted.messages, limits)
        shown = await open_pictures(named, self.pictures, share)
        settings = GenerationSettings(
            max_new_tokens=tokens,
            temperature=wanted.temperature or 0.0,
            top_p=1.0 if wanted.top_p is None else wanted.top_p,
            repetition_penalty=wanted.repetition_penalty or 1.0,
            stop=(wanted.stop,) if isinstance(wanted.stop, str) else tuple(wanted.stop or ()),
        )
        request = ChatRequest(
            tuple(turns),
            tuple(one.picture for one in shown),
            tuple(one.key for one in shown),
            settings,
            wanted.seed,
            (wanted.top_logprobs or 0) if wanted.logprobs else None,
            limits.timeout_seconds,
        )
        with_usage = bool(wanted.stream_options and wanted.stream_options.include_usage)
        return Job(engine, request, count, bool(wanted.logprobs), bool(wanted.stream), with_usage)

    async def _told(self, job: Job, events: Events, answer: Answer, started: float) -> None:
        model = job.engine.name
        head = Head(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), model)
        answers = [Collected() for _ in range(job.count)]
        pieces = self._events(events, answers, model, started)
        if job.stream:
            await answer.stream(_chunks(job, head, pieces, answers))
        else:
            async for index, event in pieces:
                if not isinstance(event, Finished):
                    answers[index].pieces.append(event)
            whole = forms.whole(head, answers, job.logprobs)
            await answer.send(JSONResponse(whole.model_dump(mode="json"), headers=FRESH))
        self._count(model, answers, time.monotonic() - started)

    async def _events(
        self, events: Events, answers: list[Collected], model: str, started: float
    ) -> AsyncIterator[tuple[int, ChatEvent]]:
        """The events until all answers have ended. Raises ApiError for an end that is none of the answer's own."""
        first = True
        while any(answer.end is None for answer in answers):
            index, event = await events.get()
            if first:
                self.metrics.first_token.labels(model).observe(time.monotonic() - started)
                first = False
            if isinstance(event, Finished):
                answers[index].end = forms.check(event)
            yield index, event

    def _count(self, model: str, answers: list[Collected], seconds: float) -> None:
        self.metrics.seconds.labels(model).observe(seconds)
        found = forms.usage([answer.end for answer in answers if answer.end is not None])
        for kind, count in (
            ("prompt", found.prompt_tokens),
            ("cached", found.prompt_tokens_details.cached_tokens),
            ("answer", found.completion_tokens),
        ):
            self.metrics.tokens.labels(model, kind).inc(count)


async def _chunks(
    job: Job, head: Head, pieces: AsyncIterator[tuple[int, ChatEvent]], answers: list[Collected]
) -> AsyncIterator[bytes]:
    """The events of a streamed completion: who speaks, the pieces, the ends, the tokens, `[DONE]`."""
    opened = False
    async for index, one in pieces:
        if not opened:
            opened = True
            for chunk in forms.opening(head, job.count, job.with_usage):
                yield event(chunk.model_dump(mode="json", exclude_unset=True))
        chunk = (
            forms.ending(head, index, one, job.with_usage)
            if isinstance(one, Finished)
            else forms.more(head, index, one, job.logprobs, job.with_usage)
        )
        yield event(chunk.model_dump(mode="json", exclude_unset=True))
    if job.with_usage:
        ends = [answer.end for answer in answers if answer.end is not None]
        yield event(forms.counted(head, ends).model_dump(mode="json", exclude_unset=True))
    yield event("[DONE]")
