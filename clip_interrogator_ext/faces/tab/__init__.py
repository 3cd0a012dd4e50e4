"""The page: its tabs, drawn with Gradio, in a WebUI or alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import gradio as gr

from clip_interrogator_ext.faces.tab import asking, components, elements
from clip_interrogator_ext.faces.tab.analyze import AnalyzeTab
from clip_interrogator_ext.faces.tab.batch import BatchTab
from clip_interrogator_ext.faces.tab.elements import element_id
from clip_interrogator_ext.faces.tab.models import ModelsTab
from clip_interrogator_ext.faces.tab.prompt import PromptTab
from clip_interrogator_ext.faces.tab.word_lists import WordListsTab

if TYPE_CHECKING:
    from clip_interrogator_ext.faces.tab.surroundings import Boxes, Surroundings
    from clip_interrogator_ext.service import Service


def draw(service: Service, surroundings: Surroundings) -> Boxes:
    """Draw the page into the blocks that are open now; return what others send from and to."""
    with components.refusing(surroundings.is_foreign):
        return _drawn(service, surroundings)


def _drawn(service: Service, surroundings: Surroundings) -> Boxes:
    components.html("notices", elements.notes(surroundings.notices(), "warning"))
    with gr.Tabs(elem_id=element_id("tabs")):
        with gr.Tab("Prompt", elem_id=element_id("tab-prompt")) as prompt_tab:
            prompt = PromptTab(service, surroundings)
        with gr.Tab("Batch", elem_id=element_id("tab-batch")) as batch_tab:
            batch = BatchTab(service, surroundings, prompt)
        with gr.Tab("Analyze", elem_id=element_id("tab-analyze")) as analyze_tab:
            analyze = AnalyzeTab(service, surroundings, prompt.image)
        with gr.Tab("Word lists", elem_id=element_id("tab-lists")) as lists_tab:
            lists = WordListsTab(service, surroundings, prompt.image)
        with gr.Tab("Models", elem_id=element_id("tab-models")) as models_tab:
            models = ModelsTab(service, streams=surroundings.streams)
    components.on(
        batch_tab.select, batch.name_models, [prompt.backbones, prompt.captioner], [batch.models]
    )
    chosen = [prompt.options.known, prompt.options.vocabulary, prompt.options.categories]
    components.on(prompt_tab.select, partial(asking.look_again, service), chosen, chosen)
    components.on(models_tab.select, models.show, [], [models.loaded, models.tables])
    components.on(lists_tab.select, lists.show, lists.asked, lists.shown)
    for tab, image in ((analyze_tab, analyze.image), (lists_tab, lists.image)):
        components.on(
            tab.select, lambda theirs, ours: theirs if ours is None else ours,
            [prompt.image, image], [image],
        )
    return prompt.boxes
