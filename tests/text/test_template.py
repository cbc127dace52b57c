"""Prompts equal the original's, unknown names are helped, and the tokenizer handed in is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
