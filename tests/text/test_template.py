"""Prompts equal the original's, unknown names are helped, and the tokenizer handed in is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken

from bunny.core.errors import UserError
from bunny.core.types import ImageRef, Sample, Turn
from bunny.text.template import Template, Writer
from tests.tiny import byte_level, metaspace

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "conversations.json").read_text(encoding="utf-8"))
TALK = (Turn("user", "Hi"), Turn("assistant", "Hello!"), Turn("user", "Bye"))
OURS = {"default": "bunny", "phi3": "bunny"}


@pytest.mark.parametrize("name", [name for name, case in GOLDEN.items() if "prompt" in case])
def test_prompts_equal_the_originals(name: str) -> None:
    template = Template.named(OURS.get(name, name))
    assert "".join(piece.text for piece in template.pieces(TALK, answer_next=True)) == GOLDEN[name]["prompt"]


def test_the_plain_template_is_picture_caption_newline() -> None:
    assert GOLDEN["plain"]["sep"] == "\n"
    pieces = Template.named("plain").pieces((Turn("user", "<image>"), Turn("assistant", "a cat")))
    assert "".join(piece.text for piece in pieces) == "<image>a cat\n"


def test_an_unknown_template_names_the_nearest() -> None:
    with pytest.raises(UserError, match="no template is called `chatlm`; did you mean `chatml`"):
        Template.named("chatlm")


def test_the_blank_before_an_answer_is_learnt_where_it_is_a_token_of_its_own() -> None:
    tokenizer = byte_level()
    writer = Writer(Template.named("bunny"), tokenizer, 999, 1)
    row = writer.row(Sample("s", (), (Turn("user", "x"), Turn("assistant", "Éa"))))
    first = next(i for i, label in enumerate(row.labels.tolist()) if label >= 0)
    assert (
        tokenizer.convert_ids_to_tokens(int(row.ids[first])) == "Ġ"
    )  # the model has to write it: the prompt ends at ":"


def test_the_writer_leaves_the_tokenizer_as_it_was() -> None:
    tokenizer = metaspace()
    before = tokenizer("</s> yes").input_ids
    Writer(Template.named("chatml"), tokenizer, 999, 1).prompt((Turn("user", "</s> <image>"),), (ImageRef("a"),))
    assert tokenizer("</s> yes").input_ids == before
    assert tokenizer.convert_tokens_to_ids("</s>") in before


def test_text_that_goes_on_gets_no_blank_in_the_middle() -> None:
    writer = Writer(Template.named("chatml"), metaspace(), 999, 1)
    row = writer.row(Sample("s", (), (Turn("user", "x"), Turn("assistant", "yes"))))
    learnt = [int(id) for id, label in zip(row.ids, row.labels, strict=True) if label >= 0]
    assert not writer.tokenizer.convert_ids_to_tokens(learnt)[0].startswith("▁")


def test_plain_writes_pictures_and_captions_but_no_questions() -> None:
    turns = (
        Turn("system", "Be kind."),
        Turn("user", "Give a brief description.\n<image>"),
        Turn("assistant", "a cat"),
    )
    template = Template.named("plain")
    assert "".join(piece.text for piece in template.pieces(turns)) == "<image>a cat\n"
    tokenizer = metaspace()
    row = Writer(template, tokenizer, 999, 2).row(Sample("s", (ImageRef("a"),), turns))
    assert row.ids[:3].tolist() == [tokenizer.bos_token_id, 999, 999]
    assert row.labels[:3].tolist() == [-100] * 3
    assert row.labels[3:].tolist() == row.ids[3:].tolist()
    assert row.ids[-1] != tokenizer.eos_token_id


def test_a_system_turn_goes_into_the_user_turn_behind_it() -> None:
    template = Template.named("gemma")
    text = "".join(piece.text for piece in template.pieces((Turn("system", "Be kind."), *TALK[:1])))
    assert text == "<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n"
    with pytest.raises(UserError, match="there is none; put its words into the user turn"):
        template.pieces((Turn("system", "Be kind."), Turn("assistant", "Hello!")))


def test_a_default_goes_into_the_first_user_turn_too() -> None:
    template = Template.named("gemma").model_copy(update={"system": "Be kind."})
    text = "".join(piece.text for piece in template.pieces(TALK))
    assert text.startswith("<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n")
    talk = [{"role": turn.role, "content": turn.text} for turn in TALK]
    assert metaspace().apply_chat_template(talk, chat_template=template.jinja(), tokenize=False) == text


def test_without_a_system_turn_llama_3_1_still_writes_its_header() -> None:
    template = Template.named("llama3_1_chat")
    text = "".join(piece.text for piece in template.pieces(TALK[:1]))
    assert text.startswith("<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n")
    assert "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user" in text


def test_an_end_that_the_tokenizer_does_not_have_is_refused_with_the_templates_that_fit() -> None:
    tokenizer = byte_level(("<|im_start|>", "<|im_end|>"))
    with pytest.raises(
        UserError, match=r"`<\|endoftext\|>`, which is no token of this tokenizer; templates that fit"
    ) as e:
        Writer(Template.named("bunny"), tokenizer, 999, 1)
    assert e.value.fix == "templates that fit it: chatml, qwen3, qwen_chat, smollm3"
    Writer(Template.named("plain"), tokenizer, 999, 1)  # it ends with a line break, and means to
    tokenizer.chat_template = "x"
    with pytest.raises(UserError, match="smollm3, native"):
        Writer(Template.named("bunny"), tokenizer, 999, 1)


def test_a_token_that_swallows_blanks_swallows_those_of_the_template_but_not_peoples() -> None:
    tokenizer = byte_level()
    tokens = [AddedToken(token, special=True, rstrip=True) for token in ("<|user|>", "<|end|>", "<|assistant|>")]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens}, replace_extra_special_tokens=False)
    template = Template.named("phi3_chat")
    writer = Writer(template, tokenizer, 999, 1)
    text = "".join(piece.text for piece in template.pieces(TALK, answer_next=True))
    assert writer.prompt(TALK) == tokenizer(text).input_ids
    assert "Ċ" not in tokenizer.convert_ids_to_tokens(writer.prompt(TALK))
    assert "Ċ" in tokenizer.convert_ids_to_tokens(writer.prompt((Turn("user", "\nHi"),)))
