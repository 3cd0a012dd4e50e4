"""The requests of other people's scripts, filled up from the user's settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clip_interrogator_ext.options import CaptionOptions, InterrogateOptions, ModelOptions


def interrogate_options(setting: Callable[[str], Any], mode: str) -> InterrogateOptions:
    """Return what is asked about a picture in one of the modes."""
    return InterrogateOptions(
        mode=mode,
        pool_size=setting("pool_size"),
        min_flavors=setting("min_flavors"),
        max_flavors=setting("max_flavors"),
        token_budget=setting("token_budget"),
        captioning=CaptionOptions(
            beams=setting("caption_beams"),
            min_length=setting("caption_min_length"),
            max_length=setting("caption_max_length"),
        ),
    )


def model_options(setting: Callable[[str], Any], backbone: str) -> ModelOptions:
    """Return which networks answer."""
    return ModelOptions(
        backbones=(backbone,),
        captioner=setting("captioner"),
        chunk_size=setting("chunk_size"),
        low_memory=setting("low_memory"),
    )
