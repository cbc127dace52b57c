"""Requests that wait, leave, fail, come too many: the others never notice, and the engine goes on."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from bunny.core.chat import Busy, ChatEngine, ChatEvent, ChatRequest, Finished, Piece
from bunny.core.errors import UserError
from bunny.core.types import GenerationSettings, Turn
from bunny.infer.engine import Engine
from bunny.infer.generate import Generator
from bunny.infer.slots import SlotLayer
from tests.infer.engines import GREEDY, Heard, chat, running
from tests.infer.test_generate import MIXED, ONE, SAME, asked
from tests.infer.test_shared_prefix import special

LONG = GenerationSettings(max_new_tokens=300)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """A model that never ends an answer by itself."""
    made = special(tmp_path_factory.mktemp("llama"), LlamaConfig, {"tie_word_embeddings": False})
    for id in made._stop_ids():
        made.model.lm_head.weight.data[id] = 0
    return made


def test_an_engine_is_what_the_server_asks_for(maker: Generator) -> None:
    with running(maker) as engine:
        assert isinstance(engine, ChatEngine)


def test_a_full_queue_says_when_to_come_again(maker: Generator) -> None:
    pause = threading.Event()
    with running(maker, running=1, queue=2) as engine:
        first = Heard(engine, chat(SAME[0], LONG), pause)
        assert first.spoke.wait(60)
        waiting = [Heard(engine, chat(SAME[0])) for _ in range(2)]
        assert engine.figures()["waiting"] == 2
        with pytest.raises(Busy) as busy:
            engine.submit(chat(SAME[0]), lambda event: None)
        assert 0 < busy.value.retry_after_seconds <= 60
        first.ticket.cancel()
        pause.set()
        assert first.end.reason == "cancelled"
        assert {one.end.reason for one in waiting} == {"length"}


def test_one_may_leave_while_waiting_while_reading_and_while_speaking(maker: Generator) -> None:
    pause = threading.Event()
    with running(maker, running=2, prefill_tokens=3) as engine:
        speaking = Heard(engine, chat(SAME[0], LONG), pause)
        assert speaking.spoke.wait(60)
        reading = Heard(engine, chat(SAME[1]))
        waiting = Heard(engine, chat(SAME[2]))
        for one in (speaking, reading, waiting):
            one.ticket.cancel()
            one.ticket.cancel()
        pause.set()
        assert [one.end.reason for one in (speaking, reading, waiting)] == ["cancelled"] * 3
        assert (reading.text, waiting.text) == ("", "")
        speaking.ticket.cancel()  # long over
        assert Heard(engine, chat(SAME[2])).end.reason == "length"
        assert engine.figures()["requests_cancelled_total"] == 3


def test_time_runs_out_while_speaking_and_while_waiting(maker: Generator) -> None:
    pause = threading.Event()
    with running(maker, running=1) as engine:
        speaking = Heard(engine, chat(SAME[0], LONG, timeout_seconds=0.2), pause)
        waiting = Heard(engine, chat(SAME[1], timeout_seconds=0.1))
        assert speaking.spoke.wait(60)
        assert not speaking.done.wait(0.3)  # the clock goes on while the listener holds the engine
        pause.set()
        assert speaking.end.reason == "timeout"
        assert waiting.end.reason == "timeout"
        assert 0 < speaking.end.completion_tokens < 300


def broken(maker: Generator, key: str) -> ChatRequest:
    """A request whose picture cannot be encoded."""
    return ChatRequest((Turn("user", "<image>\nwhat?"),), ("no picture",), (key,), GREEDY)


def test_a_picture_that_cannot_be_read_fails_alone(maker: Generator) -> None:
    with running(maker) as engine:
        heard = [Heard(engine, chat(request)) for request in MIXED]
        bad = Heard(engine, broken(maker, "bad"))
        assert bad.end.reason == "error"
        assert bad.end.error
        assert {one.end.reason for one in heard} == {"length"}
        assert Heard(engine, chat(SAME[0])).end.reason == "length"


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_a_pass_that_fails_is_traced_to_its_row(
    maker: Generator, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {request.turns[-1].text: maker.answer([request], GREEDY)[0] for request in MIXED}
    poison = maker._ids(asked("poison", ()))
    with running(maker) as engine:
        read = engine._reader.read

        def fails(parts: Any) -> torch.Tensor:
            if any(part.row.ids[: len(poison)] == poison for part in parts):
                raise error
            return read(parts)

        monkeypatch.setattr(engine._reader, "read", fails)
        heard = [Heard(engine, chat(request)) for request in MIXED]
        bad = Heard(engine, chat(asked("poison", ())))
        assert bad.end.reason == "error"
        for request, one in zip(MIXED, heard, strict=True):
            assert one.text.strip() == expected[request.turns[-1].text]


def test_room_that_is_not_there_at_once_is_asked_for_again(maker: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    grow, tries = SlotLayer.grow, []

    def fails(layer: SlotLayer, capacity: int) -> None:
        tries.append(capacity)
        if len(tries) == 2:
            raise torch.OutOfMemoryError("no room")
        grow(layer, capacity)

    monkeypatch.setattr(SlotLayer, "grow", fails)
    monkeypatch.setattr("bunny.infer.slots.GROWTH", 8)
    with running(maker) as engine:
        pause = threading.Event()
        first = Heard(engine, chat(SAME[1]), pause)  # holds the engine until the others are there
        engine.submit(chat(SAME[0]), lambda event: pause.wait(60) and None)
        heard = [Heard(engine, chat(request)) for request in MIXED]
        pause.set()
        assert [one.text.strip() for one in heard] == [maker.answer([request], GREEDY)[0] for request in MIXED]
        assert first.end.reason in ("length", "error")
    assert len(tries) > 2


def test_half_precision_is_served(tmp_path: Path) -> None:
    half = special(tmp_path, LlamaConfig, {})
    half.model.to(torch.bfloat16)
    how = GenerationSettings(max_new_tokens=6, temperature=0.8, top_p=0.9)
    with running(half) as engine:
        heard = [Heard(engine, chat(request, how, seed=1, logprobs=1)) for request in MIXED]
        assert {one.end.reason for one in heard} <= {"stop", "length"}
        (alone,) = half.answer([SAME[1]], GREEDY)
        assert Heard(engine, chat(SAME[1])).text.strip()[:1] == alone[:1]


def test_numbers_that_are_none_end_their_row_only(maker: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [maker.answer([request], GREEDY)[0] for request in MIXED]
    with running(maker, running=3) as engine:
        embeds = engine._reader._embeds

        def spoilt(parts: Any) -> torch.Tensor:
            made, begin = embeds(parts), 0
            for part in parts:
                end = begin + part.end - part.row.read
                if part.row.request.seed == 13:
                    made[0, begin:end] = math.nan
                begin = end
            return made

        monkeypatch.setattr(engine._reader, "_embeds", spoilt)
        for how in (GREEDY, GenerationSettings(max_new_tokens=4, temperature=1.0, top_p=0.9)):
            bad = [Heard(engine, chat(SAME[1], how, seed=13, logprobs=2)) for _ in range(2)]
            heard = [Heard(engine, chat(request)) for request in MIXED]
            assert {one.end.reason for one in bad} == {"error"}
            assert [one.text.strip() for one in heard] == expected


def test_a_listener_that_fails_harms_nobody_else(maker: Generator) -> None:
    def fails(event: ChatEvent) -> None:
        raise ValueError("deaf")

    with running(maker) as engine:
        engine.submit(chat(SAME[0]), fails)
        assert Heard(engine, chat(SAME[1])).end.reason == "length"
        assert engine.figures()["requests_error_total"] == 1


def test_a_step_that_fails_ends_its_rows_and_not_the_engine(maker: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(maker) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(engine, "_parts", lambda: 1 / 0)
            assert Heard(engine, chat(SAME[0])).end.reason == "error"
        assert Heard(engine, chat(SAME[0])).end.reason == "length"


def test_closing_lets_answers_end_and_takes_no_more(maker: Generator) -> None:
    engine = Engine(maker.model, maker.processor, "tiny", running=2)
    heard = [Heard(engine, chat(request)) for request in MIXED]
    engine.close(60)
    assert {one.end.reason for one in heard} == {"length"}
    with pytest.raises(Busy):
        engine.submit(chat(SAME[0]), lambda event: None)
    engine.close(1)


def test_closing_cancels_what_takes_too_long(maker: Generator) -> None:
    pause = threading.Event()
    engine = Engine(maker.model, maker.processor, "tiny", running=1)
    speaking = Heard(engine, chat(SAME[0], LONG), pause)
    waiting = Heard(engine, chat(SAME[1]))
    assert speaking.spoke.wait(60)
    closing = threading.Thread(target=engine.close, args=(0,))
    closing.start()
    while engine._closing is None:
        pass
    pause.set()
    closing.join(60)
    assert [one.end.reason for one in (speaking, waiting)] == ["cancelled", "cancelled"]


def test_an_answer_ends_where_the_model_can_read_no_further(maker: Generator) -> None:
    context = maker.model.config.text_config.max_position_embeddings
    prompt = asked("x " * 150, ())
    length = len(maker._ids(prompt))
    with running(maker, prefill_tokens=400) as engine:
        end = Heard(engine, chat(prompt, GenerationSettings(max_new_tokens=context))).end
    assert (end.reason, end.completion_tokens) == ("length", context - length)


REFUSED = {
    "no user turn": (ChatRequest((Turn("system", "be short"),)), "user turn"),
    "beams": (chat(SAME[0], GenerationSettings(num_beams=2)), "beams"),
    "no token": (chat(SAME[0], GenerationSettings(max_new_tokens=0)), "max_new_tokens"),
    "a prompt too long": (chat(asked("a long story " * 300, ())), "512"),
    "marks without pictures": (ChatRequest((Turn("user", "<image> what?"),)), "pictures"),
    "keys without pictures": (ChatRequest((Turn("user", "what?"),), (), ("a",)), "keys"),
    "a temperature below 0": (chat(SAME[0], GenerationSettings(temperature=-1.0)), "temperature"),
    "a top_p above 1": (chat(SAME[0], GenerationSettings(temperature=1.0, top_p=1.5)), "top_p"),
    "a penalty of 0": (chat(SAME[0], GenerationSettings(repetition_penalty=0.0)), "penalty"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_can_never_be_answered_is_refused_at_once(maker: Generator, why: str) -> None:
    request, words = REFUSED[why]
    with running(maker) as engine:
        with pytest.raises(UserError, match=words):
            engine.submit(request, lambda event: None)
        assert engine.figures()["waiting"] == 0


def test_figures_count_what_was_done(maker: Generator) -> None:
    with running(maker, running=3) as engine:
        heard = [Heard(engine, chat(request)) for request in [*MIXED, asked("x", ONE)]]
        ends = [one.end for one in heard]
        figures = engine.figures()
    assert figures["requests_length_total"] == len(ends)
    assert figures["completion_tokens_total"] == sum(end.completion_tokens for end in ends) == 12 * len(ends)
    assert figures["prompt_tokens_total"] == sum(end.prompt_tokens for end in ends)
    assert figures["cached_tokens_total"] == sum(end.cached_tokens for end in ends)
    assert figures["picture_hits_total"] + figures["picture_misses_total"] >= 3
    assert 1 < figures["mean_batch"] <= 3
    assert figures["step_seconds_total"] > 0
    assert figures["prefix_bytes"] > 0


def test_every_answer_ends_with_one_end(maker: Generator) -> None:
    with running(maker) as engine:
        heard = Heard(engine, chat(SAME[0]))
        assert heard.end
    assert [type(event) for event in heard.events[:-1]] == [Piece] * (len(heard.events) - 1)
    assert isinstance(heard.events[-1], Finished)
