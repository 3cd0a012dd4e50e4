"""BLIP-2: a picture summed up in a few query vectors, which a language model goes on from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clip_interrogator_ext.models.captioning import TransformersCaptioner


class Blip2(TransformersCaptioner):
    """Salesforce's BLIP-2, with OPT or T5 as its language model."""

    model_class = "Blip2ForConditionalGeneration"
    image_processor_class = "BlipImageProcessor"

    def writer(self) -> Any:
        """Return the language model."""
        return self.module.language_model

    def write(self, pixels: Tensor, **settings: Any) -> Tensor:
        """Return what the language model writes after picture and start token.

        The module's own `generate` is not used: it wants image tokens in its prompt or not,
        depending on the version and on how old the folder is, and counts lengths accordingly.
        """
        prefix = self._prefix(pixels)
        ids: Tensor = self.module.language_model.generate(
            inputs_embeds=prefix, attention_mask=_ones(prefix), **settings
        )
        return ids

    def _prefix(self, pixels: Tensor) -> Tensor:
        """Return what the language model reads: (n, queries + 1, its width)."""
        module = self.module
        seen = module.vision_model(pixels, return_dict=True).last_hidden_state
        # Some versions keep the Q-Former in float32 while the rest is in half precision.
        seen = seen.to(module.query_tokens.dtype)
        summary = module.qformer(
            query_embeds=module.query_tokens,
            encoder_hidden_states=seen,
            encoder_attention_mask=_ones(seen),
            return_dict=True,
        ).last_hidden_state
        projection = module.language_projection
        queries = projection(summary.to(projection.weight.dtype))
        start = torch.full((len(queries), 1), self.roles["bos_token_id"], device=queries.device)
        words = module.language_model.get_input_embeddings()
        return torch.cat([queries, words(start).to(queries.dtype)], dim=1)


def _ones(embeddings: Tensor) -> Tensor:
    return torch.ones(embeddings.shape[:-1], dtype=torch.long, device=embeddings.device)
