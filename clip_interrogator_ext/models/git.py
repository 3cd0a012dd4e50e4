"""GIT: one decoder that reads the picture's tokens and then its own words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clip_interrogator_ext.models.captioning import TransformersCaptioner


class Git(TransformersCaptioner):
    """Microsoft's GIT."""

    model_class = "GitForCausalLM"
    image_processor_class = "CLIPImageProcessor"

    def write(self, pixels: Tensor, **settings: Any) -> Tensor:
        """Return the start token and what was written after it."""
        start = torch.full((len(pixels), 1), self.roles["bos_token_id"], device=pixels.device)
        ids: Tensor = self.module.generate(pixel_values=pixels, input_ids=start, **settings)
        return ids
