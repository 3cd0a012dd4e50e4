"""The Interrogator tab in the WebUI's page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import gradio as gr
from modules import shared

from clip_interrogator_ext.webui import elsewhere, receiving, sending
from clip_interrogator_ext.webui.notices import notices
from clip_interrogator_ext.webui.settings import setting

if TYPE_CHECKING:
    from clip_interrogator_ext.service import Service

log = logging.getLogger(__name__)

TITLE, ELEMENT_ID = receiving.TAB_TITLE, "cliext"


def build(service: Service) -> gr.Blocks:
    """Return the tab, or where it can't be built one that says so: the WebUI must come up."""
    try:
        return _build(service)
    except Exception as error:  # whatever it is, it must not cost the WebUI's own page
        log.exception("The Interrogator tab can't be built.")
        return _apology(error)


def _build(service: Service) -> gr.Blocks:
    from clip_interrogator_ext.faces import tab
    from clip_interrogator_ext.faces.tab.surroundings import Surroundings

    surroundings = Surroundings(
        setting=setting, notices=notices, targets=sending.targets(),
        # A flag of AUTOMATIC1111's.
        streams=not getattr(shared.cmd_opts, "no_gradio_queue", False),
        is_foreign=elsewhere.is_foreign,
    )
    # One block only: each time that one is closed costs Gradio 4 a tenth of a second.
    with gr.Blocks(analytics_enabled=False) as page:
        receiving.connect(tab.draw(service, surroundings))
    for block in page.blocks.values():
        # The WebUI would begin with the values of the first start whatever our settings say later.
        block.do_not_save_to_config = True
    return page


def _apology(error: Exception) -> gr.Blocks:
    reason = f"{type(error).__name__}: {error}"
    what = f"The Interrogator could not start ({reason}). The WebUI's console has the details."
    with gr.Blocks(analytics_enabled=False) as page:
        for sentence in (what, *notices()):
            gr.Textbox(value=sentence, label="Interrogator", interactive=False)
    return page
