"""The `<image>` token: a reserved one renamed, whatever the kind of vocabulary; else one added."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bunny.model.image_token import claim_image_token, words_of
from tests.tiny import byte_level

WORDS = ["a", "b", "c"]


def in_the_vocabulary() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<unused_1>": 1, "b": 2, "c": 3, "?": 4}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def among_added_tokens_only() -> Tokenizer:
    """As Llama-3: special tokens have the ids behind the vocabulary, and are not in it."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True) for t in ("<|begin|>", "<|end|>", "<|reserved_special_token_0|>", "<|last|>")]
    )
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(
        models.Unigram([("?", 0.0), ("a", -1.0), ("<extra_id_0>", -9.0), ("b", -1.0), ("c", -1.0)], 0)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


@pytest.mark.parametrize("make", [in_the_vocabulary, among_added_tokens_only, unigram])
def test_a_reserved_token_is_renamed_and_nothing_else_moves(make: Any) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make())
    before = tokenizer.get_vocab()
    claimed, id = claim_image_token(tokenizer, rows=len(before))
    after = claimed.get_vocab()
    (old,) = set(before) - set(after)
    assert set(after) - set(before) == {"<image>"}
    assert before[old] == after["<image>"] == id
    assert {token: n for token, n in before.items() if token != old} == {
        t: n for t, n in after.items() if t != "<image>"
    }
    assert claimed("a<image><image>b").input_ids == [*tokenizer("a").input_ids, id, id, *tokenizer("b").input_ids]
    assert tokenizer.get_vocab() == before


def test_without_a_reserved_token_one_is_added_to_a_copy() -> None:
    tokenizer = byte_level()
    size = len(tokenizer)
    claimed, id = claim_image_token(tokenizer, rows=size)
    assert (id, len(claimed), len(tokenizer)) == (size, size + 1, size)
    assert claimed("<image>").input_ids == [id]
    assert claimed("a b").input_ids == tokenizer("a b").input_ids
    assert claimed.eos_token_id == tokenizer.eos_token_id


def test_a_tokenizer_that_knows_it_already_is_taken_as_it_is() -> None:
    tokenizer = byte_level(("<|im_end|>", "<image>"))
    assert claim_image_token(tokenizer, rows=2) == (tokenizer, 1)


def test_a_row_that_is_no_word_comes_before_a_reserved_token() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=in_the_vocabulary())
    words = words_of(tokenizer)
    claimed, id = claim_image_token(tokenizer, rows=words + 10)
    assert id == words
    assert set(tokenizer.get_vocab()) < set(claimed.get_vocab())


def test_a_reserved_token_stays_what_it_is_where_that_is_asked() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=in_the_vocabulary())
    words = words_of(tokenizer)
    claimed, id = claim_image_token(tokenizer, rows=words, rename=False)
    assert id == words
    assert set(claimed.get_vocab()) == {*tokenizer.get_vocab(), "<image>"}
