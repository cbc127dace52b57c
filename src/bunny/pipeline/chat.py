"""Talk to a model: one question, or a conversation that remembers.

In: a model folder or an endpoint, picture paths, words. Out: the answer, whole or piece by piece.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from bunny.core.chat import Busy, ChatEngine, ChatEvent, ChatRequest, Finished, Piece
from bunny.core.errors import UserError
from bunny.core.types import IMAGE_MARK, GenerationSettings, ImageRef, Turn
from bunny.pipeline.answering import KEY_VARIABLES
from bunny.pipeline.placing import is_bunny, place

QUANTISED: dict[str, Literal["nf4", "int8"]] = {"4bit": "nf4", "8bit": "int8"}


@dataclass(frozen=True, slots=True)
class How:
    """How a model is opened. load_in: `4bit`, `8bit`, or as it is. device, dtype: see `placing.place`.

    endpoint: address of an OpenAI-compatible server (with its `/v1`), asked for the model of that name.
    """

    load_in: str = ""
    device: str = ""
    dtype: str = ""
    endpoint: str = ""


class Chat:
    """A loaded model. `bunny.load(PATH)` returns one.

    >>> bunny.load("runs/demo/model").chat(["cat.png"], "What is this?")  # doctest: +SKIP
    'a cat'
    """

    def __init__(self, path: str | Path, how: How | None = None) -> None:
        self.engine: ChatEngine = _open(str(path), how or How())

    def chat(self, images: Sequence[Any], question: str, settings: GenerationSettings | None = None) -> str:
        """The answer to one question about pictures (paths or PIL pictures). Raises UserError for a bad picture."""
        conversation = Conversation(self, settings or GenerationSettings())
        return "".join(conversation.ask(question, images)).strip()

    def answer(self, request: ChatRequest) -> Generator[ChatEvent, None, None]:
        """Pieces as they are written, at last a `Finished`. Closing the iterator cancels the request."""
        if request.settings.num_beams > 1 and hasattr(self.engine, "beams"):
            yield from self.engine.beams(request)
            return
        heard: SimpleQueue[ChatEvent] = SimpleQueue()
        try:
            ticket = self.engine.submit(request, heard.put)
        except Busy as busy:
            seconds = f"{busy.retry_after_seconds:.0f} s"
            raise UserError(f"{self.engine.name} is busy or cannot be reached", fix=f"try again in {seconds}") from None
        try:
            while True:
                event = heard.get()
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            ticket.cancel()


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a conversation. ref: where it is; none for one that came without a file. key: of its pixels."""

    image: Any
    key: str
    ref: ImageRef | None = None


class Conversation:
    """Turns that remember the ones before. model: a `Chat` or a model folder.

    settings, seed, system: may be set between questions. seed: none: other words each time. last: how the last answer
    ended.
    """

    def __init__(
        self, model: Chat | str | Path, settings: GenerationSettings, seed: int | None = None, system: str = ""
    ) -> None:
        self._chat = model if isinstance(model, Chat) else Chat(model)
        self.settings, self.seed, self.system = settings, seed, system
        self.reset()

    def reset(self) -> None:
        """Forget all turns and pictures; the system prompt stays."""
        self._turns: tuple[Turn, ...] = ()
        self._pictures: tuple[Shown, ...] = ()
        self.last: Finished | None = None

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What the model is told before the next question."""
        return (*([Turn("system", self.system)] if self.system else []), *self._turns)

    @property
    def pictures(self) -> tuple[Shown, ...]:
        """In order of the `<image>` marks of `turns`."""
        return self._pictures

    def ask(self, text: str, images: Sequence[Any] = ()) -> Iterator[str]:
        """The answer piece by piece. It is remembered when it ends, and what there is of it when it is stopped (by
        closing the iterator, or Ctrl-C); a question without a word of answer is forgotten with its pictures."""
        if not text.strip() and not images:
            raise UserError("an empty question", fix="write what you want to know")
        if IMAGE_MARK in text:
            raise UserError(f"the question holds {IMAGE_MARK}", fix="give pictures as files, not as marks")
        shown = tuple(_shown(image) for image in images)
        yield from self._ask(Turn("user", f"{IMAGE_MARK}\n" * len(images) + text), shown)

    def again(self) -> Iterator[str]:
        """Another answer to the last question, in place of the one it has. Raises UserError if there is none."""
        if not self._turns:
            raise UserError("no question yet", fix="ask something first")
        question = self._turns[-2]
        count = question.text.count(IMAGE_MARK)
        before, shown = self._split(count)
        kept = self._turns, self._pictures
        self._turns, self._pictures = self._turns[:-2], before
        try:
            yield from self._ask(question, shown)
        finally:
            if not self._turns or self._turns[-2] is not question:  # not a word came
                self._turns, self._pictures = kept

    def replace(self, turns: Sequence[Turn], pictures: Sequence[ImageRef]) -> None:
        """Go on from another conversation: a system turn or none, then questions and answers in turn."""
        shown = tuple(_shown(ref) for ref in pictures)
        self.reset()
        self.system = turns[0].text if turns and turns[0].role == "system" else ""
        self._turns, self._pictures = tuple(turn for turn in turns if turn.role != "system"), shown

    def _split(self, count: int) -> tuple[tuple[Shown, ...], tuple[Shown, ...]]:
        cut = len(self._pictures) - count
        return self._pictures[:cut], self._pictures[cut:]

    def _ask(self, question: Turn, shown: tuple[Shown, ...]) -> Iterator[str]:
        pictures = (*self._pictures, *shown)
        request = ChatRequest(
            turns=(*self.turns, question),
            images=tuple(one.image for one in pictures),
            image_keys=tuple(one.key for one in pictures),
            settings=self.settings,
            seed=self.seed,
        )
        answer, failed = "", False
        events = self._chat.answer(request)
        try:
            for event in events:
                if isinstance(event, Piece):
                    answer += event.text
                    yield event.text
                else:
                    self.last = event
                    failed = event.reason == "error"
        except UserError:
            failed = True
            raise
        finally:
            events.close()
            if answer.strip() and not failed:
                told = answer.strip().replace(IMAGE_MARK, "[image]")  # a mark that a model writes is no picture
                self._turns = (*self._turns, question, Turn("assistant", told))
                self._pictures = pictures
        if failed and self.last:
            raise UserError(f"no answer: {self.last.error}", fix="ask again")


def chat(model: str, images: list[str], question: str, settings: GenerationSettings, seed: int | None = None) -> str:
    """One answer from a model folder."""
    return "".join(Conversation(model, settings, seed).ask(question, images)).strip()


def _open(path: str, how: How) -> ChatEngine:
    """Raises UserError for a model, device or precision that is not there."""
    if how.endpoint:
        from bunny.serve.upstream import Upstream

        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), "")
        return Upstream(how.endpoint, path, key)
    import torch

    if how.load_in and how.load_in not in QUANTISED:
        raise UserError(f"--load-in {how.load_in}", fix=f"use {' or '.join(QUANTISED)}")
    if how.load_in and how.dtype:
        raise UserError(
            f"--load-in {how.load_in} with --dtype", fix="leave --dtype out: what is not packed is bfloat16"
        )
    device, dtype = place(Path(path), how.device, how.dtype)
    quantise = QUANTISED.get(how.load_in)
    if is_bunny(Path(path)):
        from bunny.infer.single import Single
        from bunny.model.build import load

        model, processor = load(path, quantise, device)
        return Single(model if quantise else model.to(device, getattr(torch, dtype)), processor, Path(path).name)
    from bunny.infer.any_chat import AnyChat
    from bunny.infer.any_model import load_any

    kind = torch.bfloat16 if quantise else getattr(torch, dtype)
    return AnyChat(*load_any(Path(path), kind, device, quantise), Path(path).name)


def _shown(image: Any) -> Shown:
    """A picture, opened. Raises UserError for one that cannot be."""
    from bunny.data.images import open_image, to_rgb

    ref = image if isinstance(image, ImageRef) else ImageRef(str(image)) if isinstance(image, (str, Path)) else None
    if ref is not None:
        image = open_image(ref)
    pixels = to_rgb(image)
    return Shown(pixels, hashlib.sha256(repr(pixels.size).encode() + pixels.tobytes()).hexdigest(), ref)
