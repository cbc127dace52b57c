"""A tokenizer's own chat template is taken apart rightly, or refused with the first difference."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from transformers import AutoTokenizer

from bunny.core.errors import UserError
from bunny.core.types import Turn
from bunny.model.bundled import resolve
from bunny.text.native import native_template
from bunny.text.template import Template, Writer
from tests.contracts import test_templates as contract
from tests.text.chat_templates import STYLES, tokenizer_of
from tests.tiny import byte_level

TALK = (
    Turn("user", "What is this?"),
    Turn("assistant", "A cat."),
    Turn("user", "And\nthat?"),
    Turn("assistant", "Two dogs"),
    Turn("user", "Why?"),
)
SYSTEM = Turn("system", "Be brief.")


def own_text(tokenizer: Any, turns: tuple[Turn, ...]) -> str:
    return str(
        tokenizer.apply_chat_template(
            [{"role": turn.role, "content": turn.text} for turn in turns],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
    )


def tokenizer_with(chat_template: str) -> Any:
    tokenizer = byte_level()
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.mark.parametrize("style", [style for style in STYLES if style not in ("llama3", "qwen3")])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_prompts_have_the_ids_of_the_own_chat_template(style: str, count: int) -> None:
    tokenizer = tokenizer_of(style)
    writer = Writer(native_template(tokenizer), tokenizer, 999, 1)
    for turns in (TALK[:count], (SYSTEM, *TALK[:count])):
        if writer.template.system_turn is not None or turns[0].role != "system":
            text = tokenizer.decode(writer.prompt(turns))
            assert text == own_text(tokenizer, turns)


@pytest.mark.parametrize("style", ["mistral", "llama2", "gemma"])
def test_a_bos_that_the_tokenizer_does_not_add_becomes_part_of_the_template(style: str) -> None:
    tokenizer = tokenizer_of(style, starts=False)
    writer = Writer(native_template(tokenizer), tokenizer, 999, 1)
    assert writer.start == []
    assert tokenizer.decode(writer.prompt(TALK)) == own_text(tokenizer, TALK)


def test_the_families_own_fields_are_found() -> None:
    mistral = native_template(tokenizer_of("mistral"))
    assert (mistral.user_turn.before, mistral.user_turn.after) == ("[INST] ", " [/INST]")
    assert (mistral.assistant_turn.gap, mistral.assistant_turn.end) == (" ", "</s>")
    gemma = native_template(tokenizer_of("gemma"))
    assert gemma == Template.named("gemma")
    assert native_template(tokenizer_of("phi3")) == Template.named("phi3_chat")
    assert native_template(tokenizer_of("chatml")) == Template.named("chatml")
    assert native_template(tokenizer_of("default system")).system == "Be kind."


def test_thinking_is_off_and_an_empty_thought_stays_in_earlier_answers() -> None:
    tokenizer = tokenizer_of("qwen3")
    template = native_template(tokenizer)
    assert template == Template.named("qwen3")
    thought = "<think>\n\n</think>\n\n"
    written = "".join(piece.text for piece in template.pieces(TALK, answer_next=True))
    assert written.count(thought) == 3
    assert own_text(tokenizer, TALK).count(thought) == 1


def test_a_date_is_pinned_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="bunny"):
        template = native_template(tokenizer_of("llama3"))
    assert "Today: 26 Jul 2024\n\n<|eot_id|>" in template.without_system
    assert "its date is pinned to 2024-07-26" in caplog.text


def test_a_place_for_system_turns_that_moves_is_not_taken() -> None:
    assert native_template(tokenizer_of("mistral")).system_turn is None  # it goes into the last question


LOOP = "{% for m in messages %}"
WRONG = {
    "no chat template of its own": "",
    "ends an answer with no token": LOOP + "{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}",
    "drops, repeats or moves": LOOP + "{{ m.content | upper + '</s>' }}{% endfor %}",
    "chat template fails: not today": "{{ raise_exception('not today') }}",
    "its chat template writes '1What .* where ours would write '0What .* in a talk of 2 turns": LOOP
    + "{% if m.role == 'user' %}{{ 'Q' + messages[1:] | length | string + m.content + 'A' }}"
    "{% else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}",
    "behind '</s>@', and the model is to speak behind '</s>Bot:'": LOOP + "{{ '@' + m.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Bot:' }}{% endif %}",
}


@pytest.mark.parametrize("message", WRONG)
def test_what_five_lines_cannot_say_is_refused(message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        native_template(tokenizer_with(WRONG[message]))
    assert "name a template that comes along" in caught.value.fix


@pytest.mark.demo
def test_the_bundled_language_models_template_passes_the_whole_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve("bundled:smollm2-135m-instruct"))
    template = native_template(tokenizer)
    assert template.system == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert template.model_copy(update={"system": ""}) == Template.named("chatml")
    writer = Writer(template, tokenizer, contract.IMAGE, contract.TOKENS)
    for turns in (TALK, (SYSTEM, *TALK)):
        assert tokenizer(own_text(tokenizer, turns)).input_ids == writer.prompt(turns)
    monkeypatch.setitem(contract.WRITERS, ("native", "smollm2"), writer)
    suite: list[Callable[..., None]] = [
        contract.test_labels_cover_exactly_the_answers_and_their_ends,
        contract.test_a_row_starts_with_the_ids_of_its_inference_prompts,
        contract.test_words_of_people_never_become_special_tokens,
        contract.test_each_picture_takes_its_tokens,
        contract.test_the_chat_template_writes_the_same_ids,
    ]
    for check in suite:
        for talk in contract.TALKS:
            check(("native", "smollm2"), talk)
