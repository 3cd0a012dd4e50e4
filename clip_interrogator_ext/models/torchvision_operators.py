"""Let a torchvision whose compiled operators don't load be imported all the same.

A torchvision built for another torch stops at import with "operator torchvision::nms does not
exist". CLIP and BLIP need its transforms only, which are plain Python, so the two operators that
its import names are declared without an implementation, and the user is told once.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from clip_interrogator_ext import packages

log = logging.getLogger(__name__)

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: object = None  # torch drops the declarations when their library object is collected


def import_torchvision() -> None:
    """Import torchvision, declaring its operators where its own could not be loaded.

    Does nothing where torchvision is missing: whoever needs it says so.
    """
    global _library
    if _library is not None or not packages.is_there("torchvision"):
        return
    with packages.needed("torchvision"):
        try:
            import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            import torch

            make_library: Any = torch.library.Library  # torch leaves it without types
            library = make_library("torchvision", "DEF")
            for schema in _SCHEMAS:
                library.define(schema)
            _library = library
            log.warning(
                "torchvision was not built for torch %s (%s). That does no harm here: only its "
                "transforms are used.",
                torch.__version__,
                error,
            )
            import_module("torchvision")
