"""`BunnyForConditionalGeneration`: a Llava model with Bunny's projectors and a packed training loss.

In: token ids and pixels (inference, transformers' own path) or a packed batch (training). Out: logits, or the
summed weighted loss of the batch with logits computed only where there is a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, AutoModelForImageTextToText
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import (
    LlavaCausalLMOutputWithPast,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaPreTrainedModel,
)

from bunny.core.types import IGNORE
from bunny.model.attention import at_least_float32
from bunny.model.config import BunnyConfig
from bunny.model.projector import build_projector
from bunny.model.s2 import multiscale

LOGIT_ROWS = 2048
"""Label positions whose logits are in memory at once: 2048 x 150k x 4 bytes = 1.2 GB for the largest vocabulary."""


PICTURES = 8
"""Pictures that a tower which does not learn sees at once: it gives all its layers' states, of which one is kept."""


class BunnyModel(LlavaModel):  # type: ignore[misc]  # transformers is untyped
    """Vision tower, projector, language model without its head."""

    config_class = BunnyConfig

    def __init__(self, config: BunnyConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = build_projector(
            config.projector_type, config.feature_width, config.text_config.hidden_size
        )
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def tower_features(self, pixel_values: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) as the vision tower sees them: (B, N, feature width), before the projector."""
        if not self.config.s2_scales:
            return self.patch_features(pixel_values)
        return multiscale(pixel_values, self.config.s2_scales, self.patch_features)

    def patch_features(self, pixel_values: Tensor) -> Tensor:
        """The chosen layer of the vision tower at its own size: (B, N, vision width).

        With the strategy `default` only the patches are kept: class and register tokens, which come first, go.
        """
        learns = pixel_values.requires_grad or any(p.requires_grad for p in self.vision_tower.parameters())
        sharded = any(isinstance(part, FSDPModule) for part in self.vision_tower.modules())
        if (learns and torch.is_grad_enabled()) or sharded:  # sharded: all ranks have to call it equally often
            return self._chosen_layer(pixel_values)
        with torch.no_grad():
            return torch.cat([self._chosen_layer(some) for some in pixel_values.split(PICTURES)])

    def _chosen_layer(self, pixel_values: Tensor) -> Tensor:
        states = self.vision_tower(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        chosen = states[self.config.vision_feature_layer]
        if self.config.vision_feature_select_strategy == "full":
            return chosen  # type: ignore[no-any-return]
        height, width = pixel_values.shape[-2:]
        patch = self.config.vision_config.patch_size
        return chosen[:, -(height // patch) * (width // patch) :]  # type: ignore[no-any-return]

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Tower features (last_hidden_state) and, per picture, its (image_seq_length, width) tokens (pooler_output)."""
        features = self.tower_features(pixel_values)
        tokens = self.multi_modal_projector(features)
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=list(tokens))


class BunnyForConditionalGeneration(LlavaForConditionalGeneration):  # type: ignore[misc]
    """A small vision-language model. `generate`, `pipeline("image-text-to-text")`, peft and quantisation work."""

    config_class = BunnyConfig
    _no_split_modules: Sequence[str] | None = None

    def __init__(self, config: BunnyConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = BunnyModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        packed: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Logits, as Llava's; or with `packed` the summed loss of a packed batch (see `packed_loss`)."""
        if packed is not None:
            return self.packed_loss(**packed)
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.logits(outputs.last_hidden_state[:, kept], self.config.words)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return LlavaCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )

    def logits(self, hidden: Tensor, rows: int = 0) -> Tensor:
        """Logits (…, vocabulary) of hidden states (…, width); only the first `rows` are open (0: all).

        What some families do behind the head belongs to the arithmetic of the language model, and Llava's own wrapper
        leaves it out: Granite and MiniCPM divide, Cohere multiplies, Gemma-2 caps.
        """
        text = self.config.text_config
        logits = self.lm_head(hidden)
        if scale := getattr(text, "logits_scaling", None):
            logits = logits / scale
        if scale := getattr(text, "logit_scale", None):
            logits = logits * scale
        if cap := getattr(text, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        if 0 < rows < logits.shape[-1]:
            closed = torch.arange(logits.shape[-1], device=logits.device) >= rows
            logits = logits.masked_fill(closed, torch.finfo(logits.dtype).min)
        return logits  # type: ignore[no-any-return]

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether activations are recomputed. peft asks by this name; transformers' own answers with a warning."""
        return bool(self.is_activation_checkpointing)

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Beams: every copy of a row gets all pictures of that row (Llava repeats them picture by picture)."""
        pixels = kwargs.pop("pixel_values", None)
        if pixels is not None and expand_size > 1 and input_ids is not None:
            counts = (input_ids == self.config.image_token_id).sum(1) // self.config.image_seq_length
            pixels = torch.cat([some.repeat(expand_size, 1, 1, 1) for some in pixels.split(counts.tolist())])
        ids, kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return ids, kwargs | ({} if pixels is None else {"pixel_values": pixels})

    def packed_loss(
        self,
        ids: Tensor,
        targets: Tensor,
        weights: Tensor,
        positions: Tensor,
        features_at: Tensor,
        segments: Tensor,
        pixel_values: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Sum over positions of weight x cross-entropy of one packed batch (T tokens), a float32 scalar.

        ids, targets, positions, features_at: (T,) int64; weights: (T,) float; segments: (S, 4) int64; see
        `text.pack.Batch`.
        pixel_values: (images, 3, H, W), each picture once, or features: (images, N, feature width), what the tower
        makes of them; neither for a batch without pictures. Pictures of which no position takes anything have no
        part in the loss, but tower and projector are computed, with gradients of zero: where several processes train
        together, all of them have to call the same modules.
        Raises ValueError if no position has a target.
        """
        learnt = targets != IGNORE
        if not bool(learnt.any()):
            raise ValueError("a batch without labels")
        embeds = self.get_input_embeddings()(ids)  # (T, width)
        if pixel_values is not None:
            features = self.model.tower_features(pixel_values)  # (images, N, feature width)
        if features is not None:
            tokens = self.model.multi_modal_projector(features).flatten(0, 1)  # (images * M, width)
            places = (features_at >= 0).nonzero(as_tuple=True)
            embeds = embeds.index_put(places, tokens[features_at[places]].to(embeds.dtype))
            if not len(places[0]):
                embeds = embeds + 0 * tokens.sum().to(embeds.dtype)
        hidden = self.model.language_model(
            inputs_embeds=embeds[None],
            position_ids=positions[None],
            attention_mask=segments[None, None],
            use_cache=False,
        ).last_hidden_state[0]
        return self._cross_entropy(hidden[learnt], targets[learnt], weights[learnt])

    def _cross_entropy(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros((), dtype=at_least_float32(hidden.dtype), device=hidden.device)
        many = len(hidden) > LOGIT_ROWS
        for some, goal, weight in zip(
            hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS), weights.split(LOGIT_ROWS), strict=True
        ):
            part = (
                checkpoint(self._chunk_loss, some, goal, weight, use_reentrant=False)
                if many and some.requires_grad
                else self._chunk_loss(some, goal, weight)
            )
            total = total + part
        return total

    def _chunk_loss(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        logits = self.logits(hidden)[..., : self.config.head_rows or None]  # without a row that was added for `<image>`
        logits = logits.to(at_least_float32(logits.dtype))
        return (nn.functional.cross_entropy(logits, targets, reduction="none") * weights.to(logits.dtype)).sum()


AutoModel.register(BunnyConfig, BunnyModel, exist_ok=True)
AutoModelForImageTextToText.register(BunnyConfig, BunnyForConditionalGeneration, exist_ok=True)
