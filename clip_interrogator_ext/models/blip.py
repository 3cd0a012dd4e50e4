"""BLIP: a picture's tokens, read by a small decoder through cross-attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clip_interrogator_ext.models.captioning import TransformersCaptioner

if TYPE_CHECKING:
    from torch import Tensor

_DECODER = "text_decoder.cls.predictions.decoder."
_SHARED = {
    f"{_DECODER}weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    f"{_DECODER}bias": "text_decoder.cls.predictions.bias",
}


class Blip(TransformersCaptioner):
    """Salesforce's BLIP for captioning."""

    model_class = "BlipForConditionalGeneration"
    image_processor_class = "BlipImageProcessor"

    @classmethod
    def complete(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the output layer its weights where 5.x left them out because they are shared."""
        shared = {name: state[source] for name, source in _SHARED.items() if source in state}
        return {**shared, **state}

    def writer(self) -> Any:
        """Return the text decoder."""
        return self.module.text_decoder

    def write(self, pixels: Tensor, **settings: Any) -> Tensor:
        """Return the written tokens; the module knows by itself which one starts."""
        ids: Tensor = self.module.generate(pixel_values=pixels, **settings)
        return ids
