"""Another server that speaks OpenAI's API (vLLM, SGLang, llama-server, a second one of ours) as a `ChatEngine`.

In: requests that have passed our guards. Out: its pieces. Pictures go as PNG, decoded and encoded again by us: what
reaches the server behind is pixels, whatever was sent here. A request is accepted when the other server has: what it
refuses or has no room for is known at once.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import anyio
import httpx

from bunny.core.chat import Busy, ChatEvent, ChatRequest, Ended, Finished, Piece, TokenChance
from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import IMAGE_MARK, Turn

CONNECT_SECONDS = 10.0
BUSY_SECONDS = 5.0  # to wait where the server behind does not say how long
LINE_BYTES = 4 << 20  # of one event
Listen = Callable[[ChatEvent], None]


def listed(url: str, key: str) -> tuple[str, ...]:
    """The names of a server's models. Raises UserError if it cannot be asked."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/models", headers=_headers(key), timeout=CONNECT_SECONDS, trust_env=False)
        answer.raise_for_status()
        names = tuple(str(model["id"]) for model in answer.json()["data"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{url}: {_line(error)}", fix="check --url (with its /v1) and BUNNY_UPSTREAM_KEY") from None
    if not names:
        raise UserError(f"{url}: it offers no model", fix="name one with --upstream-model")
    return names


class Upstream:
    """One model of the server at `url`. name: what it is called there, and here."""

    def __init__(self, url: str, name: str, key: str) -> None:
        self._name = name
        self._counts = {"running": 0, "requests_total": 0, "errors_total": 0}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        self._client = httpx.AsyncClient(
            base_url=f"{url.rstrip('/')}/", headers=_headers(key), trust_env=False, follow_redirects=False
        )

    @property
    def name(self) -> str:
        return self._name

    def submit(self, request: ChatRequest, listen: Listen) -> _Asked:
        """See `core.chat.ChatEngine.submit`; returns when the server behind has accepted the request."""
        asked = _Asked(self._loop)
        accepted = asyncio.run_coroutine_threadsafe(self._start(request, listen, asked), self._loop)
        accepted.result()
        return asked

    def figures(self) -> Mapping[str, float]:
        return dict(self._counts)

    def close(self, timeout_seconds: float) -> None:
        """See `core.chat.ChatEngine.close`."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(timeout_seconds), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self, request: ChatRequest, listen: Listen, asked: _Asked) -> None:
        """Raises Busy and UserError."""
        limit = httpx.Timeout(request.timeout_seconds, connect=CONNECT_SECONDS)
        body = await asyncio.to_thread(_body, self._name, request)
        sent = self._client.build_request("POST", "chat/completions", content=body, timeout=limit)
        sent.headers["content-type"] = "application/json"
        self._counts["requests_total"] += 1
        try:
            answer = await self._client.send(sent, stream=True)
        except httpx.HTTPError as error:
            self._counts["errors_total"] += 1
            log.warning("upstream: %s", _line(error))
            raise Busy(BUSY_SECONDS) from None
        if answer.status_code != 200:
            self._counts["errors_total"] += 1
            raise await _refusal(answer)
        asked.task = self._loop.create_task(self._listen(answer, request, listen))

    async def _listen(self, answer: httpx.Response, request: ChatRequest, listen: Listen) -> None:
        """Pieces as they come, at last one `Finished`, whatever happens."""
        self._counts["running"] += 1
        talk = _Talk()
        reason: Ended = "error"
        error = "the server behind broke off its answer"
        try:
            with anyio.fail_after(request.timeout_seconds):
                async for event in _events(answer):
                    for piece in talk.read(event):
                        listen(piece)
            reason = talk.reason or "error"
        except TimeoutError:
            reason = "timeout"
        except asyncio.CancelledError:
            reason = "cancelled"
        except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError, AttributeError) as failure:
            log.warning("upstream: %s", _line(failure))
        finally:
            await answer.aclose()
            self._counts["running"] -= 1
            listen(Finished(reason, *talk.counts, error=error if reason == "error" else ""))

    async def _end(self, seconds: float) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()


class _Asked:
    """A request under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.task: asyncio.Task[None] | None = None
        self._loop = loop

    def cancel(self) -> None:
        if self.task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.task.cancel)


class _Talk:
    """What the other server has said so far. counts: tokens of the prompt, of the answer, found again."""

    def __init__(self) -> None:
        self.reason: Ended | None = None
        self.counts = (0, 0, 0)

    def read(self, event: Mapping[str, Any]) -> Iterator[Piece]:
        """The pieces in one event. Raises ValueError for one that tells of an error."""
        if event.get("error"):
            raise ValueError(str(event["error"])[:300])
        if usage := event.get("usage"):
            details = usage.get("prompt_tokens_details") or {}
            cached = details.get("cached_tokens") or 0
            self.counts = (int(usage["prompt_tokens"]), int(usage["completion_tokens"]), int(cached))
        for choice in event.get("choices") or ():
            text = (choice.get("delta") or {}).get("content") or ""
            chances = _chances(choice.get("logprobs"))
            if text or chances:
                yield Piece(text, chances)
            if ended := choice.get("finish_reason"):
                self.reason = "length" if ended == "length" else "stop"


def _chances(given: Mapping[str, Any] | None) -> tuple[tuple[TokenChance, tuple[TokenChance, ...]], ...]:
    tokens = (given or {}).get("content") or ()
    return tuple((_chance(token), tuple(map(_chance, token.get("top_logprobs") or ()))) for token in tokens)


def _chance(token: Mapping[str, Any]) -> TokenChance:
    text = str(token["token"])
    raw = token.get("bytes")
    return TokenChance(text, text.encode() if raw is None else bytes(raw), float(token["logprob"]))


async def _events(answer: httpx.Response) -> AsyncIterator[Mapping[str, Any]]:
    """The JSON of each server-sent event. Raises ValueError for anything else."""
    left = b""
    async for data in answer.aiter_raw():
        *lines, left = (left + data).split(b"\n")
        if len(left) > LINE_BYTES:
            raise ValueError("an event without an end")
        for line in lines:
            if line.startswith(b"data:") and (text := line[5:].strip()) and text != b"[DONE]":
                yield json.loads(text)


async def _refusal(answer: httpx.Response) -> Exception:
    """What the other server's refusal means to the one who asked ours."""
    data = b""
    async for piece in answer.aiter_raw():
        data = (data + piece)[:LINE_BYTES]
    await answer.aclose()
    told = _told(data)
    if answer.status_code in (400, 404, 413, 422):
        return UserError(told)
    log.warning("upstream: %d: %s", answer.status_code, told)
    wait = answer.headers.get("retry-after", "")
    return Busy(float(wait) if wait.isdecimal() and len(wait) < 5 else BUSY_SECONDS)


def _told(data: bytes) -> str:
    try:
        tree = json.loads(data)
        error = tree.get("error", tree)
        message = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        message = None
    return " ".join(str(message).split())[:300] if message else "the server behind refuses the request"


def _body(name: str, request: ChatRequest) -> bytes:
    settings = request.settings
    body: dict[str, Any] = {
        "model": name,
        "messages": _messages(request),
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if settings.temperature > 0 and settings.top_p < 1:
        body["top_p"] = settings.top_p
    if settings.repetition_penalty != 1:  # not OpenAI's, but vLLM's, SGLang's and ours
        body["repetition_penalty"] = settings.repetition_penalty
    if settings.stop:
        body["stop"] = list(settings.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    if request.logprobs is not None:
        body |= {"logprobs": True, **({"top_logprobs": request.logprobs} if request.logprobs else {})}
    return json.dumps(body).encode()


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    pictures = iter(request.images)
    return [{"role": turn.role, "content": _content(turn, pictures)} for turn in request.turns]


def _content(turn: Turn, pictures: Iterator[Any]) -> str | list[dict[str, Any]]:
    """A turn's words and pictures in their order; words alone stay a text."""
    if turn.role == "assistant" or IMAGE_MARK not in turn.text:
        return turn.text
    first, *others = turn.text.split(IMAGE_MARK)
    parts: list[dict[str, Any]] = [{"type": "text", "text": first}] if first else []
    for words in others:
        parts.append({"type": "image_url", "image_url": {"url": _data_url(next(pictures))}})
        if words.removeprefix("\n"):  # the break behind a picture is the template's, not the asker's
            parts.append({"type": "text", "text": words.removeprefix("\n")})
    return parts


def _data_url(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _headers(key: str) -> dict[str, str]:
    plain = {"accept-encoding": "identity"}
    return {**plain, "authorization": f"Bearer {key}"} if key else plain


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
