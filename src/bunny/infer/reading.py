"""The model's side of answering many at once: rows' tokens go through the language model in one pass.

In: rows and how far each is to be read. Out: logits of the last tokens. Pictures are encoded once, beginnings that were
read before are copied. Rows that cannot be computed together are read one by one, each with a memory of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from bunny.infer import prefix, slots
from bunny.infer.kept import Beginnings, Kept
from bunny.infer.packed import pack
from bunny.infer.row import Row
from bunny.infer.slots import Saved, Slots, Stretch

TOGETHER = ("full_attention", "sliding_attention")
"""Kinds of layers whose rows may lie end to end: what they remember is keys and values, looked at by place."""


@dataclass(frozen=True, slots=True)
class Part:
    """A row is to be read up to `end`."""

    row: Row
    end: int


class Reader:
    """A Bunny that reads. count: slots. picture_bytes, prefix_bytes: bounds of what is kept."""

    def __init__(self, model: Any, processor: Any, count: int, picture_bytes: int, prefix_bytes: int) -> None:
        self.model, self.processor = model, processor
        self.language = model.model.language_model
        self.together = together(self.language)
        self.slots = Slots(model.config.text_config, count)
        self.pictures: Kept[Tensor] = Kept(picture_bytes)
        self.beginnings: Beginnings[Saved] = Beginnings(prefix_bytes)
        self.hits = self.misses = 0
        self.unpack = pack(self.language, model.lm_head, model.model.vision_tower, model.model.multi_modal_projector)
        self._own_attention = self.language.config._attn_implementation

    @property
    def device(self) -> torch.device:
        return self.model.device  # type: ignore[no-any-return]

    def known(self, row: Row) -> int:
        """Tokens of a row's prompt that need not be read again; its last one always is."""
        return 0 if row.alone else min(self.beginnings.find(row.said)[0], row.prompt_tokens - 1)

    def open(self, row: Row) -> None:
        """Begin a row behind what is known of it."""
        row.opened = True
        if row.alone:
            row.memory = DynamicCache(config=self.language.config)
            return
        common, saved = self.beginnings.find(row.said)
        row.cached = row.read = min(common, row.prompt_tokens - 1)
        if saved is not None and row.read:
            self.slots.put(row.slot, saved, row.read)

    def keep(self, row: Row) -> None:
        """Remember a row's tokens for those that begin alike."""
        if row.alone or not row.read:
            return
        whole = row.whole()
        if self.beginnings.find(whole)[0] < row.read:
            saved = self.slots.save(row.slot, row.read)
            self.beginnings.put(whole, saved, sum(keys.nbytes + values.nbytes for keys, values in saved))

    def next_picture(self, row: Row, end: int) -> int | None:
        """The number of the first picture whose tokens are needed to read up to `end` and are not there."""
        length = self.model.config.image_seq_length
        for number, one in enumerate(row.shown):
            if one.start < end and one.start + length > row.read and one.key not in row.features:
                if (known := self.pictures.get(one.key)) is None:
                    return number
                row.features[one.key] = known
                self.hits += 1
        return None

    def encode(self, row: Row, number: int) -> None:
        """Encode one of a row's pictures."""
        one = row.shown[number]
        pixels = self.processor.pixels([one.image]).to(self.device)
        tokens = self.model.get_image_features(pixel_values=pixels).pooler_output[0]  # (tokens, width)
        row.features[one.key] = tokens
        self.pictures.put(one.key, tokens, tokens.nbytes)
        self.misses += 1

    def read(self, parts: Sequence[Part]) -> Tensor:
        """Logits (B, vocabulary) of the last tokens of those parts that reach the end of their row's tokens.

        Parts of one token come first; a part whose row is computed alone comes alone.
        """
        hidden = self._alone(parts[0]) if parts[0].row.alone else self._together(parts)
        for part in parts:
            part.row.read = part.end
        return self.model.logits(hidden, self.model.config.words)  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Give back all memory that is not needed to go on."""
        self.pictures.clear()
        self.beginnings.kept.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _together(self, parts: Sequence[Part]) -> Tensor:
        stretches = [Stretch(part.row.slot, part.row.read, part.end) for part in parts]
        self.slots.enter(stretches, self.device)
        now = self.slots.layers[0].now
        embeds = self._embeds(parts)
        with self._attention(slots.NAME):
            out = self.language(
                inputs_embeds=embeds,
                attention_mask=embeds.new_zeros(1, 1, 1, 1),  # four dimensions: handed on as it is
                position_ids=now.places[None],
                past_key_values=self.slots,
                use_cache=True,
            ).last_hidden_state[0]  # (T, width)
        ends = torch.tensor([part.end - part.row.read for part in parts]).cumsum(0) - 1
        last = [int(end) for end, part in zip(ends, parts, strict=True) if part.end == len(part.row.ids)]
        return out[last] if len(last) < len(out) else out  # type: ignore[no-any-return]

    def _alone(self, part: Part) -> Tensor:
        embeds = self._embeds([part])
        places = torch.arange(part.row.read, part.end, device=self.device)
        with self._attention(self._own_attention):
            out = self.language(
                inputs_embeds=embeds, position_ids=places[None], past_key_values=part.row.memory, use_cache=True
            ).last_hidden_state[0]
        return out[-1:]  # type: ignore[no-any-return]

    def _embeds(self, parts: Sequence[Part]) -> Tensor:
        """Input vectors of all parts end to end, (1, T, width), with the pictures' tokens in their places."""
        ids = [id for part in parts for id in part.row.ids[part.row.read : part.end]]
        embeds = self.model.get_input_embeddings()(torch.tensor([ids]).to(self.device))
        begin = 0
        for part in parts:
            if not part.row.speaks:
                self._show(embeds[0, begin:], part)
            begin += part.end - part.row.read
        return embeds  # type: ignore[no-any-return]

    def _show(self, embeds: Tensor, part: Part) -> None:
        """Lay a row's pictures into its vectors (T, width), the first of which is the row's next token."""
        length = self.model.config.image_seq_length
        for one in part.row.shown:
            start, end = max(one.start, part.row.read), min(one.start + length, part.end)
            if start < end:
                tokens = part.row.features[one.key][start - one.start : end - one.start]
                embeds[start - part.row.read : end - part.row.read] = tokens.to(embeds.dtype)

    @contextmanager
    def _attention(self, name: str) -> Iterator[None]:
        """The language model attends so; others may use it between passes."""
        config = self.language.config
        before = config._attn_implementation
        config._attn_implementation = name
        try:
            yield
        finally:
            config._attn_implementation = before


def together(language_model: Any) -> bool:
    """Whether rows of a language model may lie end to end in one pass, each with its keys in its slot: not where it
    remembers other things (recurrent states), has sinks, or looks at chunks."""
    kinds = getattr(language_model.config, "layer_types", None) or ()
    return prefix.sharable(language_model) and all(kind in TOGETHER for kind in kinds)


def never_found() -> Hashable:
    """A key that equals no other."""
    return object()
