"""Doorway: the WebUI runs this file at every load of its UI, and other people's scripts by path."""

import importlib
import sys
from pathlib import Path

_NAME = "clip_interrogator_ext"
_ROOT = str(Path(__file__).resolve().parents[1])


def _package():
    """Return our package, which lies beside this folder, wherever sys.path points by now."""
    loaded = sys.modules.get(_NAME)
    if loaded is not None and hasattr(loaded, "__path__"):
        return loaded
    # Nobody has imported it, or this very file was loaded by the package's name.
    sys.modules.pop(_NAME, None)
    sys.path.insert(0, _ROOT)
    try:
        return importlib.import_module(_NAME)
    finally:
        sys.path.remove(_ROOT)


def _webui():
    _package()
    return importlib.import_module(f"{_NAME}.webui")


def get_models():
    """Return the names of all CLIP backbones."""
    return _webui().get_models()


def image_to_prompt(image, mode="fast", clip_model_name="ViT-L-14/openai"):
    """Return the prompt for a picture."""
    return _webui().image_to_prompt(image, mode, clip_model_name)


def unload():
    """Let go of all networks."""
    _webui().unload()


_webui().register()

if __name__ == _NAME:
    # Whoever imports this file by that name finds the package, so the package has the names too.
    for _function in (get_models, image_to_prompt, unload):
        setattr(_package(), _function.__name__, _function)
