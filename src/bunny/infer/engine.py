"""The answering engine: many conversations at once, token by token, on one model.

In: `ChatRequest`s at any moment, from any thread. Out: their pieces, as `core.chat` says. Before every step those who
wait take the places of those who have finished; a step reads one token of every answer under way and a bounded stretch
of new prompts, in one pass. Answers are the same as those given one by one (tests/infer/test_engine.py).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from bunny.core.chat import Busy, ChatEvent, ChatRequest, Ended
from bunny.core.errors import UserError
from bunny.core.log import log
from bunny.core.types import ImageRef
from bunny.infer import prefix
from bunny.infer.generate import Generator
from bunny.infer.kept import picture_places
from bunny.infer.pace import Pace
from bunny.infer.reading import Part, Reader, never_found
from bunny.infer.row import Row, Shown
from bunny.infer.sampling import Chooser, Drawn, draw
from bunny.infer.spoken import Spoken

PREFILL, CPU_PREFILL = 512, 48
"""Tokens of prompts in a step while others speak. On a CPU few, for the sake of those who speak: with SmolLM2-135M on
one core a prompt of 220 tokens takes 0.6 seconds."""

ALIKE = 16
"""Tokens that a prompt must share with one that is being read, beyond what is known already, to wait for it."""


class Engine:
    """A `ChatEngine` on a loaded Bunny. The model is the engine's until `close`.

    name: what the model is called. running: answers computed together at most. queue: requests that may wait.
    prefill_tokens: of prompts, read in one step while others speak: between two tokens of an answer stand at most one
    such stretch and one picture; none: what suits the device. picture_bytes, prefix_bytes: what is remembered of
    pictures and of prompts.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        running: int = 8,
        queue: int = 64,
        prefill_tokens: int | None = None,
        picture_bytes: int = 256 * 2**20,
        prefix_bytes: int = 512 * 2**20,
    ) -> None:
        self._name, self._most, self._queue = name, running, queue
        self._generator = Generator(model, processor)
        self._reader = Reader(self._generator.model, processor, running, picture_bytes, prefix_bytes)
        self._prefill = prefill_tokens or (CPU_PREFILL if self._reader.device.type == "cpu" else PREFILL)
        self._ends = frozenset(self._generator._stop_ids())
        self._never = int(model.config.image_token_id)
        self._encoding = threading.Lock()  # tokenizers are not made for several threads
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._running: list[Row] = []
        self._closing: float | None = None  # when what still runs is cancelled
        self._pace = Pace()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._name

    def submit(self, request: ChatRequest, listen: Callable[[ChatEvent], None]) -> Ticket:
        """See `core.chat.ChatEngine.submit`."""
        self._check_room()
        row = self._row(request, listen)
        with self._changed:
            self._check_room()
            self._waiting.append(row)
            self._changed.notify()
        return Ticket(row, self._changed)

    def figures(self) -> Mapping[str, float]:
        """See `core.chat.ChatEngine.figures`."""
        reader, pace = self._reader, self._pace
        counts = {f"requests_{reason}_total": float(count) for reason, count in pace.ended.items()}
        return counts | {
            "running": len(self._running),
            "waiting": len(self._waiting),
            "prompt_tokens_total": pace.prompt_tokens,
            "completion_tokens_total": pace.completion_tokens,
            "cached_tokens_total": pace.cached_tokens,
            "picture_hits_total": reader.hits,
            "picture_misses_total": reader.misses,
            "steps_total": pace.steps,
            "step_seconds_total": pace.step_seconds,
            "mean_batch": pace.rows / pace.steps if pace.steps else 0.0,
            "kv_bytes": reader.slots.bytes,
            "prefix_bytes": reader.beginnings.kept.bytes,
            "picture_bytes": reader.pictures.bytes,
        }

    def close(self, timeout_seconds: float) -> None:
        """See `core.chat.ChatEngine.close`. Not from a listener."""
        with self._changed:
            self._closing = time.monotonic() + timeout_seconds
            self._changed.notify()
        self._thread.join()
        self._reader.forget()
        self._reader.slots.release()
        self._reader.unpack()

    def _check_room(self) -> None:
        if self._closing is not None or len(self._waiting) >= self._queue:
            raise Busy(self._pace.seconds_a_request)

    def _row(self, request: ChatRequest, listen: Callable[[ChatEvent], None]) -> Row:
        """The request as ids. Raises UserError if it can never be answered."""
        settings, images, keys = request.settings, request.images, request.image_keys
        if not any(turn.role == "user" for turn in request.turns):
            raise UserError("no user turn", fix="ask something")
        if settings.num_beams != 1:
            raise UserError("beams are not offered while many are answered at once", fix="leave `num_beams` at 1")
        if settings.max_new_tokens < 1:
            raise UserError(f"max_new_tokens: {settings.max_new_tokens}", fix="ask for at least one token")
        if keys and len(keys) != len(images):
            raise UserError(f"{len(images)} pictures, {len(keys)} keys", fix="give one key per picture, or none")
        with self._encoding:
            ids = self._generator.writer.prompt(request.turns, tuple(ImageRef(str(n)) for n in range(len(images))))
        config = self._generator.model.config
        context = int(config.text_config.max_position_embeddings)
        if len(ids) >= context:
            raise UserError(f"the prompt has {len(ids)} tokens, the model reads {context}", fix="shorten it")
        places = picture_places(ids, config.image_token_id, config.image_seq_length)
        heard = [0 if id == config.image_token_id else id for id in ids]
        most = min(settings.max_new_tokens, context - len(ids))
        ((_, batched),) = prefix.alike([len(ids)], most, config.text_config)
        begun = request.turns[-1].role == "assistant"
        gap = "" if begun else self._generator.writer.template.assistant_turn.gap
        return Row(
            request,
            listen,
            ids,
            tuple(map(Shown, places, keys or [never_found() for _ in images], images)),
            most,
            Chooser(settings, request.seed, request.logprobs, heard, self._reader.device),
            Spoken(self._generator.processor.tokenizer, settings.stop, gap),
            self._ends,
            alone=not (batched and self._reader.together),
        )

    def _run(self) -> None:
        with torch.inference_mode():
            while self._admit():
                try:
                    self._step()
                except Exception:  # noqa: BLE001  # whatever fails, the engine goes on
                    log.exception("a step of the answering engine failed")
                    for row in tuple(self._running):
                        self._end(row, "error", "the model failed")

    def _admit(self) -> bool:
        """Let in who may begin; waits while there is nothing to do. False when the engine is to end."""
        with self._changed:
            while not self._running and not self._waiting and self._closing is None:
                self._reader.slots.release()
                self._changed.wait()
            late = self._closing is not None and time.monotonic() >= self._closing
            gone = [row for row in self._waiting if late or self._over(row)]
            for row in gone:
                self._waiting.remove(row)
            begin: list[Row] = []
            free = sorted(set(range(self._most)) - {row.slot for row in self._running})
            while free and self._waiting:
                row = self._waiting.popleft()
                row.slot = free.pop(0)
                begin.append(row)
            self._running += begin
        for row in gone:
            self._end(row, self._over(row) or "cancelled")
        for row in tuple(self._running):
            if late or self._over(row):
                self._end(row, self._over(row) or "cancelled")
        return bool(self._running or self._waiting or self._closing is None)

    def _over(self, row: Row) -> Ended | None:
        """Why nobody waits for a row any longer."""
        if row.cancelled:
            return "cancelled"
        return "timeout" if row.deadline is not None and time.monotonic() >= row.deadline else None

    def _step(self) -> None:
        """One token for every answer under way, and a stretch of the prompts behind them."""
        started = time.monotonic()
        parts = self._parts()
        for some in _passes(parts):
            self._advance(some)
        if parts:
            self._pace.step(len(parts), time.monotonic() - started)

    def _parts(self) -> list[Part]:
        """What this step reads: tokens of answers first."""
        speaking = [Part(row, len(row.ids)) for row in self._running if row.speaks]
        room = self._prefill if speaking else max(PREFILL, self._prefill)
        encoded = False
        reading: list[Part] = []
        for row in [row for row in self._running if not row.speaks]:
            if room <= 0:
                break
            try:
                if not row.opened:
                    if self._waits_for_another(row):
                        continue
                    self._reader.open(row)
                end = row.prompt_tokens if row.alone else min(row.prompt_tokens, row.read + room)
                while (number := self._reader.next_picture(row, end)) is not None:
                    if encoded and speaking and not row.alone:
                        end = row.shown[number].start
                        break
                    self._reader.encode(row, number)
                    encoded = True
            except Exception as error:  # noqa: BLE001  # one prompt's failure is its own
                log.exception("a prompt could not be read")
                self._end(row, "error", _words(error))
                continue
            if end > row.read:
                reading.append(Part(row, end))
                room -= end - row.read
        return sorted(speaking + reading, key=lambda part: part.end - part.row.read > 1)

    def _waits_for_another(self, row: Row) -> bool:
        """Whether another row reads just now what this one begins with."""
        shared = [row.said.common(other.said) for other in self._running if other.opened and not other.speaks]
        return not row.alone and max(shared, default=0) > self._reader.known(row) + ALIKE

    def _advance(self, parts: Sequence[Part]) -> None:
        """Read, draw, tell. A failure that several could have caused is traced to its row by reading them apart."""
        began = [part.row.read for part in parts]
        try:
            logits = self._reader.read(parts)
            done = [part.row for part in parts if part.end == len(part.row.ids)]
            drawn = draw([row.chooser for row in done], logits, self._never) if done else []
        except Exception as error:  # noqa: BLE001  # out of memory has many names
            for part, read in zip(parts, began, strict=True):
                part.row.read = read
            self._reader.forget()
            if len(parts) > 1:
                log.warning("a pass over %d rows failed: %s", len(parts), error)
                for part in parts:
                    self._advance([part])
            else:
                log.exception("a row failed")
                self._end(parts[0].row, "error", _words(error))
            return
        for row, token in zip(done, drawn, strict=True):
            self._hear(row, token)

    def _hear(self, row: Row, token: Drawn) -> None:
        """A row says its next token; it leaves if that was the last."""
        if token.id < 0:
            if not row.alone:
                self._reader.slots.clear(row.slot)
            self._end(row, "error", "the model's output is not a number")
            return
        first = row.given == 0
        try:
            reason = row.hear(token)
        except Exception as error:  # noqa: BLE001  # a listener's failure is its own
            log.exception("an answer could not be passed on")
            self._end(row, "error", _words(error))
            return
        if reason:
            self._end(row, reason)
        elif first:
            row.features.clear()
            self._reader.keep(row)

    def _end(self, row: Row, reason: Ended, error: str = "") -> None:
        """A row leaves, whatever it was at."""
        if row in self._running:
            self._running.remove(row)
            if reason != "error":
                self._reader.keep(row)
        self._pace.end(row, reason)
        try:
            row.finish(reason, error)
        except Exception:  # noqa: BLE001  # the same
            log.exception("the end of an answer could not be passed on")


class Ticket:
    """See `core.chat.Ticket`."""

    def __init__(self, row: Row, changed: threading.Condition) -> None:
        self._row, self._changed = row, changed

    def cancel(self) -> None:
        self._row.cancelled = True
        with self._changed:
            self._changed.notify()


def _passes(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts that are read together: all, but those whose rows are computed alone."""
    together = [part for part in parts if not part.row.alone]
    return [some for some in (together, *([part] for part in parts if part.row.alone)) if some]


def _words(error: Exception) -> str:
    """What an error says to the one who asked: a user's error in its own words, else its kind alone."""
    if isinstance(error, UserError):
        return str(error)
    return "out of memory" if isinstance(error, torch.OutOfMemoryError) else f"the model failed: {type(error).__name__}"
