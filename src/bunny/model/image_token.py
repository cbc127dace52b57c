"""The `<image>` token: an id inside the vocabulary that stands for one picture token.

It is the first row of the language model that is no word of its tokenizer; where all rows are words a reserved token is
renamed, so that no row is added and logits keep their shape; else one row is added. Generation never produces it.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from bunny.core.types import IMAGE_MARK

RESERVED = re.compile(r"<\|?(empty_output|reserved[_ -]?(special_token_)?\d*|unused_?\d+|extra_id_\d+|dummy_\d+)\|?>")


def words_of(tokenizer: Any) -> int:
    """Ids that the tokenizer can write: rows of the language model beyond them stand for nothing."""
    return 1 + int(max(tokenizer.get_vocab().values()))


def claim_image_token(tokenizer: Any, rows: int, rename: bool = True) -> tuple[Any, int]:
    """(tokenizer that knows `<image>` as one special token, its id). The tokenizer handed in is not changed.

    rows: of the language model's vocabulary. rename: take a reserved token before a row is added.
    """
    vocabulary = tokenizer.get_vocab()
    if IMAGE_MARK in vocabulary:
        return tokenizer, int(vocabulary[IMAGE_MARK])
    reserved = sorted((id, token) for token, id in vocabulary.items() if RESERVED.fullmatch(token))
    if not reserved or not rename or words_of(tokenizer) < rows:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_MARK]}, replace_extra_special_tokens=False)
        return tokenizer, int(tokenizer.convert_tokens_to_ids(IMAGE_MARK))
    id, old = reserved[0]
    return _renamed(tokenizer, old, id), id


def _renamed(tokenizer: Any, old: str, id: int) -> Any:
    """The tokenizer with token `old` called `<image>` and special."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = tree["model"]["vocab"]
    if isinstance(vocabulary, list):  # unigram: [token, score] pairs, the place is the id
        tree["model"]["vocab"] = [[IMAGE_MARK if token == old else token, score] for token, score in vocabulary]
    elif old in vocabulary:  # else it lives among the added tokens only, and their ids count on the vocabulary's size
        tree["model"]["vocab"] = {IMAGE_MARK if token == old else token: n for token, n in vocabulary.items()}
    entry = {"id": id, "content": IMAGE_MARK, "special": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tree["added_tokens"] = sorted(
        [*(token for token in tree["added_tokens"] if token["id"] != id), {**entry, **plain}],
        key=lambda token: token["id"],
    )
    kept = ("bos_token", "eos_token", "pad_token", "unk_token", "model_max_length", "padding_side")
    settings = {name: getattr(tokenizer, name) for name in kept if getattr(tokenizer, name, None) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(tree)), extra_special_tokens=[IMAGE_MARK], **settings
    )
