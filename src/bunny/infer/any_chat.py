"""Any Hugging Face image-text model as a `ChatEngine`: conversations by its own chat template, one after the other.

In: `ChatRequest`s. Out: pieces while they are written; beams are known whole only. What continuous batching needs of a
model (`infer.engine`) cannot be asked of every kind, so here requests wait for each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from bunny.core.chat import Busy, ChatEvent, ChatRequest, Ended, Finished, Piece
from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import IMAGE_MARK, Turn
from bunny.infer.any_model import own_config
from bunny.infer.spoken import Spoken

Listen = Callable[[ChatEvent], None]


class AnyChat:
    """name: what the model is called. queue: requests that may wait."""

    def __init__(self, model: Any, processor: Any, name: str, queue: int = 16) -> None:
        self.model, self.processor, self._name, self._queue = model, processor, name, queue
        self._pool = ThreadPoolExecutor(1, "answers")
        self._asked: set[_Answering] = set()
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    def submit(self, request: ChatRequest, listen: Listen) -> _Answering:
        """See `core.chat.ChatEngine.submit`. Timeouts and probabilities are not offered."""
        if self._closed or len(self._asked) > self._queue:
            raise Busy(1.0)
        if request.logprobs is not None:
            raise UserError(f"{self._name}: its probabilities are not told", fix="leave `logprobs` out")
        if not any(turn.role == "user" for turn in request.turns):
            raise UserError("no user turn", fix="ask something")
        asked = _Answering(request, listen, self._inputs(request))
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context and asked.prompt_tokens >= context:
            raise UserError(f"the prompt has {asked.prompt_tokens} tokens, the model reads {context}", fix="shorten it")
        self._asked.add(asked)
        self._pool.submit(self._run, asked)
        return asked

    def figures(self) -> Mapping[str, float]:
        waiting = len(self._asked)
        return {"running": float(waiting > 0), "waiting": float(max(0, waiting - 1))}

    def close(self, timeout_seconds: float) -> None:
        """See `core.chat.ChatEngine.close`."""
        self._closed = True
        late = threading.Timer(timeout_seconds, self._cancel)
        late.start()
        self._pool.shutdown(wait=True)
        late.cancel()

    def _cancel(self) -> None:
        for asked in tuple(self._asked):
            asked.cancel()

    def _inputs(self, request: ChatRequest) -> Any:
        pictures = iter(request.images)
        messages = [{"role": turn.role, "content": list(_parts(turn, pictures))} for turn in request.turns]
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        images = list(request.images) or None
        return self.processor(text=[prompt], images=images, return_tensors="pt").to(self.model.device, self.model.dtype)

    def _run(self, asked: _Answering) -> None:
        reason: Ended = "error"
        error = ""
        try:
            reason = self._generate(asked)
        except Exception as failure:  # noqa: BLE001  # whatever fails, the asker hears of it
            log.exception("an answer failed")
            error = f"the model failed: {type(failure).__name__}"
        self._asked.discard(asked)
        asked.listen(Finished(reason, asked.prompt_tokens, asked.given, error=error))

    def _generate(self, asked: _Answering) -> Ended:
        settings = asked.request.settings
        config = own_config(self.model, self.processor, settings)
        asked.spoken = Spoken(self.processor.tokenizer, settings.stop)
        config.stop_strings = None  # `Spoken` finds them, and keeps them out of what is told
        told = {} if settings.num_beams > 1 else {"streamer": _Streamer(asked)}
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices):
            if asked.request.seed is not None:
                torch.manual_seed(asked.request.seed)
            else:
                torch.seed()
            out = self.model.generate(
                **asked.inputs, generation_config=config, stopping_criteria=StoppingCriteriaList([_Over(asked)]), **told
            )
        if not told:
            asked.hear(out[0, asked.prompt_tokens :].tolist())
        asked.tell(asked.spoken.end())
        if asked.cancelled:
            return "cancelled"
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        return "stop" if asked.spoken.stopped or asked.last in ends else "length"


class _Answering:
    """A request under way, and its ticket. last: the id given last."""

    def __init__(self, request: ChatRequest, listen: Listen, inputs: Any) -> None:
        self.request, self.listen, self.inputs = request, listen, inputs
        self.prompt_tokens = int(inputs["input_ids"].shape[1])
        self.given, self.last, self.cancelled = 0, -1, False
        self.spoken: Spoken

    def cancel(self) -> None:
        self.cancelled = True

    @property
    def over(self) -> bool:
        return self.cancelled or self.spoken.stopped

    def hear(self, ids: list[int]) -> None:
        for id in ids:
            if self.over:
                return
            self.given, self.last = self.given + 1, id
            self.tell(self.spoken.add(id))

    def tell(self, text: str) -> None:
        if text:
            self.listen(Piece(text))


class _Streamer(BaseStreamer):  # type: ignore[misc]  # transformers is untyped
    """Hears every token; the first that it hears are the prompt's."""

    def __init__(self, asked: _Answering) -> None:
        self._asked, self._prompt = asked, True

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt:
            self._asked.hear(value.flatten().tolist())
        self._prompt = False

    def end(self) -> None:
        """Nothing is held back here."""


class _Over(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Nobody waits for more."""

    def __init__(self, asked: _Answering) -> None:
        self._asked = asked

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._asked.over, device=input_ids.device)


def _parts(turn: Turn, pictures: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """A turn's words and pictures in their order, as chat templates take them."""
    if turn.role == "assistant" or IMAGE_MARK not in turn.text:
        yield {"type": "text", "text": turn.text}
        return
    first, *others = turn.text.split(IMAGE_MARK)
    if first:
        yield {"type": "text", "text": first}
    for words in others:
        next(pictures)
        yield {"type": "image"}
        if words.removeprefix("\n"):  # the break behind a picture is the template's
            yield {"type": "text", "text": words.removeprefix("\n")}
