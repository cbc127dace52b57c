"""Answers given together, in any order of arrival, are those given one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, Qwen3NextConfig

from bunny.core.chat import Piece
from bunny.core.recipe import ModelSection
from bunny.core.types import GenerationSettings, ImageRef, Turn
from bunny.infer.engine import Engine
from bunny.infer.generate import Generator, Request
from bunny.infer.reading import together
from bunny.model.build import build
from bunny.text.template import Template
from tests.infer.engines import GREEDY, Heard, chat, running, texts
from tests.infer.test_generate import MIXED, ONE, OTHER, SAME, SEVERAL, TWO, asked, generator, parts
from tests.infer.test_shared_prefix import KINDS, RECURRENT, TWO_SETS, special
from tests.tiny import FAMILIES

__all__ = ["parts"]  # a fixture
ALL = [*MIXED, *SAME, *SEVERAL, *TWO_SETS]
SMALL: dict[str, Any] = {"running": 5, "prefill_tokens": 7}
DRAWN = GenerationSettings(max_new_tokens=10, temperature=1.3, top_p=0.9, repetition_penalty=1.2)


@pytest.mark.parametrize("family", FAMILIES)
def test_many_at_once_say_what_the_generator_says(parts: Path, family: str) -> None:  # the fixture
    maker = generator(parts, family)
    alone = [maker.answer([request], GREEDY)[0] for request in ALL]
    assert [one.strip() for one in texts(maker, [chat(request) for request in ALL], **SMALL)] == alone
    assert len(set(alone)) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_windows_and_positions_are_kept(tmp_path: Path, kind: str) -> None:
    maker = special(tmp_path, *KINDS[kind])
    alone = [maker.answer([request], GREEDY)[0] for request in ALL]
    assert [one.strip() for one in texts(maker, [chat(request) for request in ALL], **SMALL)] == alone


def test_single_tokens_in_one_piece_and_row_by_row_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = special(tmp_path, *KINDS["gemma2, windows in every second layer"])
    alone = [maker.answer([request], GREEDY)[0] for request in ALL]
    for waste in (0.0, 1e9):  # never, always together
        monkeypatch.setattr("bunny.infer.slots.WASTE", waste)
        assert [one.strip() for one in texts(maker, [chat(request) for request in ALL], **SMALL)] == alone


def test_a_model_with_recurrent_states_answers_row_by_row(tmp_path: Path) -> None:
    maker = special(tmp_path, Qwen3NextConfig, RECURRENT)
    assert not together(maker.model.model.language_model)
    some = [*MIXED, *SAME]
    alone = [maker.answer([request], GREEDY)[0] for request in some]
    assert [one.strip() for one in texts(maker, [chat(request) for request in some], **SMALL)] == alone


def test_a_model_that_sees_two_scales_is_served(parts: Path, tmp_path: Path) -> None:  # the fixture
    section = ModelSection(language_model=str(parts / "qwen2"), vision_tower=str(parts / "siglip"), s2_scales=[32, 64])
    kind = Template.named("chatml")
    maker = Generator(*build(section, kind.model_dump(), kind.jinja(), seed=0))
    alone = [maker.answer([request], GREEDY)[0] for request in MIXED]
    assert [one.strip() for one in texts(maker, [chat(request) for request in MIXED], **SMALL)] == alone


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return special(tmp_path_factory.mktemp("llama"), LlamaConfig, {})


@given(st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_arrives_and_leaves_an_answer_is_its_own(maker: Generator, data: st.DataObject) -> None:
    """Random arrivals, lengths, seeds and cancellations: nobody's answer changes."""
    some = data.draw(st.lists(st.sampled_from(ALL), min_size=2, max_size=9))
    requests = []
    for number, request in enumerate(some):
        most = data.draw(st.integers(1, 20))
        drawn = data.draw(st.booleans())
        how = GenerationSettings(most, 1.2, 0.95, 1.1) if drawn else GenerationSettings(most)
        requests.append(chat(request, how, seed=number))
    gone = data.draw(st.sets(st.integers(0, len(some) - 1), max_size=2))
    late = data.draw(st.integers(0, len(some)))
    size: dict[str, Any] = {"running": data.draw(st.integers(1, 4)), "prefill_tokens": data.draw(st.integers(1, 40))}
    with running(maker, **size) as engine:
        alone = [Heard(engine, request).text for request in requests]
    with running(maker, **size) as engine:
        heard = [Heard(engine, request) for request in requests[:late]]
        if heard:
            assert heard[0].spoke.wait(60) or heard[0].done.wait(60)
        heard += [Heard(engine, request) for request in requests[late:]]
        for number in gone:
            heard[number].ticket.cancel()
        for number, one in enumerate(heard):
            if number in gone:
                assert alone[number].startswith(one.text)
            else:
                assert one.text == alone[number]
    figures = engine.figures()
    assert figures["running"] == figures["waiting"] == figures["requests_error_total"] == 0


def test_a_seed_gives_the_same_answer_and_another_another(maker: Generator) -> None:
    requests = [chat(SAME[1], DRAWN, seed=seed) for seed in (1, 1, 2, 3)]
    one, again, *others = texts(maker, [*requests, *map(chat, ALL)])[:4]
    assert one == again
    assert set(others) != {one}
    assert texts(maker, requests[:1]) == [one]


def test_the_penalty_is_the_generators(maker: Generator) -> None:
    how = GenerationSettings(max_new_tokens=12, repetition_penalty=1.4)
    alone = [maker.answer([request], how)[0] for request in ALL]
    assert [one.strip() for one in texts(maker, [chat(request, how) for request in ALL])] == alone


def test_stop_words_end_an_answer_and_are_never_said(maker: Generator) -> None:
    whole = [maker.answer([request], GREEDY)[0] for request in ALL]
    for request, said in zip(ALL, whole, strict=True):
        stop = said[len(said) // 2 :][:2]
        if not stop:
            continue
        how = GenerationSettings(max_new_tokens=12, stop=(stop, "never said"))
        with running(maker) as engine:
            heard = Heard(engine, chat(request, how))
            assert heard.text.strip() == said.partition(stop)[0].strip()
            assert heard.end.reason == "stop"


def test_chances_are_those_of_the_raw_logits(maker: Generator) -> None:
    request = SAME[1]
    how = GenerationSettings(max_new_tokens=6, temperature=0.7, repetition_penalty=1.3)
    with running(maker) as engine:
        others = [Heard(engine, chat(one)) for one in MIXED]
        heard = Heard(engine, chat(request, how, seed=5, logprobs=3))
        chances = [chance for piece in heard.pieces for chance in piece.chances]
        assert all(one.end for one in others)
    assert len(chances) == heard.end.completion_tokens - (heard.end.reason == "stop")
    ids = torch.tensor([maker._ids(request)])
    inputs = maker._inputs(ids, torch.ones_like(ids), list(request.images))
    with torch.inference_mode():
        logits = maker.model(inputs_embeds=inputs["inputs_embeds"]).logits[0, -1]
    expected = logits.log_softmax(-1).sort(descending=True).values[:3]
    own, alternatives = chances[0]
    assert [one.logprob for one in alternatives] == pytest.approx(expected.tolist(), abs=1e-4)
    assert own.logprob <= alternatives[0].logprob + 1e-6
    decoded = b"".join(one.raw for one, _ in chances).decode(errors="replace")
    assert decoded.strip().startswith(heard.text.strip()[:3])


def test_a_second_turn_finds_the_first_in_memory(maker: Generator) -> None:
    first = Request((Turn("user", "<image>\nwhat is this?"),), ONE)
    with running(maker) as engine:
        said = Heard(engine, chat(first))
        assert said.end.cached_tokens == 0
        turns = (*first.turns, Turn("assistant", said.text), Turn("user", "is it red?"))
        again = Heard(engine, chat(Request(turns, ONE)))
        assert again.end.cached_tokens >= said.end.prompt_tokens
        assert engine.figures()["cached_tokens_total"] == again.end.cached_tokens
    assert again.text.strip() == maker.answer([Request(turns, ONE)], GREEDY)[0]


def test_an_answer_that_has_begun_goes_on(maker: Generator) -> None:
    begun, request = "a red circle", SAME[1]
    turns = (*request.turns, Turn("assistant", begun))
    words = maker.processor.tokenizer(begun, add_special_tokens=False).input_ids
    assert maker.writer.prompt(turns, (ImageRef("0"),)) == [*maker._ids(request), *words]
    asking = Request(turns, request.images)
    assert [one.strip() for one in texts(maker, [chat(asking)])] == maker.answer([asking], GREEDY)


def test_another_picture_is_never_taken_for_the_same(maker: Generator) -> None:
    asks = [asked("what?", pictures) for pictures in (ONE, OTHER, (ONE[0], OTHER[0]), (OTHER[0], ONE[0]), TWO)]
    alone = [maker.answer([request], GREEDY)[0] for request in asks]
    assert len(set(alone)) > 2
    with running(maker) as engine:
        for _ in range(2):
            assert [Heard(engine, chat(request)).text.strip() for request in asks] == alone
        figures = engine.figures()
    assert figures["picture_misses_total"] == 4


def test_pictures_without_keys_are_not_looked_up(maker: Generator) -> None:
    request = SAME[0]
    with running(maker) as engine:
        ends = [Heard(engine, chat(request)).end, Heard(engine, chat(request)).end]
        bare = chat(request)
        bare = type(bare)(bare.turns, bare.images, (), bare.settings)
        ends.append(Heard(engine, bare).end)
        place = maker._ids(request).index(maker.model.config.image_token_id)
        assert [end.cached_tokens for end in ends] == [0, ends[0].prompt_tokens - 1, place]


def test_questions_that_come_together_read_their_picture_once(maker: Generator) -> None:
    questions = [asked(text, ONE) for text in ("is it red?", "a circle?", "how many?", "what is this?")]
    with running(maker, prefill_tokens=8) as engine:
        ends = [Heard(engine, chat(request)) for request in questions]
        cached = [one.end.cached_tokens for one in ends]
        assert engine.figures()["picture_misses_total"] == 1
    place = maker._ids(questions[0]).index(maker.model.config.image_token_id)
    assert cached[0] == 0
    assert min(cached[1:]) >= place + 16


def test_nothing_is_remembered_without_room(maker: Generator) -> None:
    with running(maker, picture_bytes=0, prefix_bytes=0) as engine:
        ends = [Heard(engine, chat(SAME[0])) for _ in range(2)]
        assert [one.end.cached_tokens for one in ends] == [0, 0]
        figures = engine.figures()
        assert figures["prefix_bytes"] == figures["picture_bytes"] == 0


def test_only_the_last_positions_go_through_the_head(maker: Generator) -> None:
    with running(maker, prefill_tokens=8) as engine:
        rows = []
        hook = engine._reader.model.lm_head.register_forward_pre_hook(lambda module, args: rows.append(args[0].shape))
        heard = [Heard(engine, chat(request)) for request in MIXED]
        total = sum(one.end.completion_tokens for one in heard)
        hook.remove()
    assert sum(shape[0] for shape in rows) == total


def test_the_model_is_left_as_it_was(maker: Generator) -> None:
    language = maker.model.model.language_model
    before = language.config._attn_implementation
    texts(maker, [chat(request) for request in MIXED])
    assert language.config._attn_implementation == before
    assert not any("forward" in module.__dict__ for module in maker.model.modules())


def test_running_answers_stall_for_one_stretch_of_a_prompt_at_most(maker: Generator) -> None:
    """While one speaks, a long prompt is read in stretches between its tokens."""
    with running(maker, prefill_tokens=10) as engine:
        lengths: list[int] = []
        layer = engine._reader.language.layers[0]
        hook = layer.register_forward_hook(lambda module, args, out: lengths.append(args[0].shape[1]))
        speaking = Heard(engine, chat(SAME[2], GenerationSettings(max_new_tokens=60, stop=("never",))))
        assert speaking.spoke.wait(60)
        start = len(lengths)
        late = Heard(engine, chat(asked("what is the colour of the circle? " * 8, ())))
        assert late.end
        assert speaking.end
        hook.remove()
    assert max(lengths[start + 1 :]) <= 10 + 2
    assert isinstance(speaking.events[0], Piece)


def test_an_engine_is_called_by_its_name(maker: Generator) -> None:
    with running(maker) as engine:
        assert isinstance(engine, Engine)
        assert engine.name == "tiny"
