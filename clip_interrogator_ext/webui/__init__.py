"""The engine inside the Stable Diffusion WebUI: the only place that knows the WebUI's modules.

`register()` is called by the doorway in `scripts/`, at every start and at every reload of the UI.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from modules import script_callbacks

from clip_interrogator_ext.errors import InterrogatorError
from clip_interrogator_ext.webui import receiving, settings
from clip_interrogator_ext.webui.host import WebuiHost

if TYPE_CHECKING:
    import gradio as gr
    from PIL import Image

    from clip_interrogator_ext.service import Service

log = logging.getLogger(__name__)

_service: Service | None = None
_service_lock = threading.Lock()


def service() -> Service:
    """Return the one service of this process; it outlives reloads of the UI."""
    global _service
    from clip_interrogator_ext.service import Service

    with _service_lock:
        if _service is None:
            _service = Service(WebuiHost(), **_folders())
        return _service


def register() -> None:
    """Tell the WebUI of our tab, routes and settings, unless it knows of them already.

    The WebUI forgets all callbacks before it runs the doorways again, and other people's scripts
    run ours once more by path: so what counts is whether our callbacks are listed now.
    """
    listed = script_callbacks.callback_map["callbacks_ui_tabs"]
    if any(known.callback is _on_ui_tabs for known in listed):
        return
    callbacks = {
        "before_ui": receiving.forget,
        "ui_settings": _on_ui_settings,
        "after_component": receiving.on_after_component,
        "ui_tabs": _on_ui_tabs,
        "app_started": _on_app_started,
        "script_unloaded": receiving.forget,
    }
    for category, callback in callbacks.items():
        # `on_ui_tabs` and its like would look for our file in the whole stack, 50 ms each time.
        script_callbacks.add_callback(
            script_callbacks.callback_map[f"callbacks_{category}"], callback,
            category=category, filename=__file__,
        )


def get_models() -> list[str]:
    """Return the names of all CLIP backbones that there are weights for."""
    return service().known_backbones()


def image_to_prompt(image: Image.Image, mode: str, clip_model_name: str) -> str:
    """Return the prompt for a picture, with the user's settings for everything else.

    Raises an InterrogatorError.
    """
    from clip_interrogator_ext.options import interrogate_options, model_options

    options = interrogate_options(settings.setting, mode=mode)
    models = model_options(settings.setting, (clip_model_name,))
    return service().interrogate(image, options, models).text


def unload() -> None:
    """Let go of all networks."""
    service().unload()


def _folders() -> dict[str, Any]:
    """Return the folders that the settings name, as the service takes them."""
    return {key: settings.setting(key) for key in settings.FOLDERS}


def _use_folders() -> None:
    service().use_folders(**_folders())


def _vocabularies() -> list[str]:
    """Return the names of the sets of word lists; where they can't be read there are none."""
    try:
        return list(service().word_sets())
    except InterrogatorError as error:  # which the tab shows as well
        log.warning("%s", error)
        return []


def _on_ui_settings() -> None:
    settings.remember()
    settings.add_section(on_folders_changed=_use_folders, vocabularies=_vocabularies)
    _use_folders()


def _on_ui_tabs() -> list[tuple[gr.Blocks, str, str]]:
    from clip_interrogator_ext.webui import tab

    return [(tab.build(service()), tab.TITLE, tab.ELEMENT_ID)]


def _on_app_started(page: Any, app: Any) -> None:
    """Add our routes to the FastAPI app; `page` is None where the WebUI runs without one."""
    from clip_interrogator_ext.faces import api
    from clip_interrogator_ext.webui import elsewhere, login

    api.add_routes(
        app, service(), allowed=login.guard(), setting=settings.setting,
        is_foreign=elsewhere.is_foreign,
    )
    elsewhere.watch(app)
    if page is not None:
        from clip_interrogator_ext.faces.tab import leaving

        leaving.dont_wait_for_pages(page)
