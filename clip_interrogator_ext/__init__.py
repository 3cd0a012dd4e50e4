"""Image in, prompt out.

    from PIL import Image
    from clip_interrogator_ext import InterrogateOptions, Service

    prompt = Service().interrogate(Image.open("photo.jpg"), InterrogateOptions(mode="fast"))
    print(prompt.text)

Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clip_interrogator_ext.host import StandaloneHost
    from clip_interrogator_ext.images import open_image
    from clip_interrogator_ext.options import CaptionOptions, InterrogateOptions, ModelOptions
    from clip_interrogator_ext.results import Analysis, Part, Prompt
    from clip_interrogator_ext.service import Service

__version__ = "0.1.0"

_HOMES = {
    "Analysis": "results",
    "CaptionOptions": "options",
    "InterrogateOptions": "options",
    "ModelOptions": "options",
    "Part": "results",
    "Prompt": "results",
    "Service": "service",
    "StandaloneHost": "host",
    "open_image": "images",
}

__all__ = [
    "Analysis",
    "CaptionOptions",
    "InterrogateOptions",
    "ModelOptions",
    "Part",
    "Prompt",
    "Service",
    "StandaloneHost",
    "__version__",
    "open_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
