"""Pictures of one color stand in for what networks see, in tests of batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    from clip_interrogator_ext.results import Look


class Colors:
    """Looks at pictures as a service does; a vector is how red the picture is."""

    def preparer(self, _models: Any, **_asked: Any) -> Callable[[Image.Image], int]:
        return lambda image: image.getpixel((0, 0))[0]

    def captions(self, pictures: Sequence[int], *_asked: Any) -> list[str]:
        return [f"color {red}" for red in pictures]

    def vectors(self, pictures: Sequence[int], *_asked: Any) -> list[Any]:
        return [((float(red),),) for red in pictures]


def red_of(look: Look) -> int:
    """Return how red the picture is that was looked at."""
    return int(look.vectors[0][0])
