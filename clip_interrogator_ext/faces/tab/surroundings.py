"""What the program around the page offers it, handed over as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clip_interrogator_ext.origins import OWN_ONLY
from clip_interrogator_ext.settings import SETTINGS

if TYPE_CHECKING:
    import gradio as gr


@dataclass(frozen=True)
class Boxes:
    """The components of the page that others send from and to."""

    image: gr.Image
    prompt: gr.Textbox
    negative: gr.Textbox


@dataclass(frozen=True)
class Target:
    """A place that results can be sent to.

    `connect` is called once while the page is built, with the button that sends and the boxes
    that are sent.
    """

    name: str
    label: str
    connect: Callable[[gr.Button, Boxes], None]


def default_setting(key: str) -> Any:
    """Return a setting's default."""
    return SETTINGS[key].default


def no_notices() -> Sequence[str]:
    """Return no notices."""
    return ()


@dataclass(frozen=True)
class Surroundings:
    """Where the page is shown, and what it can do there.

    `setting` returns a setting's value at the time it is asked. `notices` returns sentences that
    the user must see first: a package that is missing, a restart that is needed. Without targets
    the page offers to copy instead. `streams` is false where Gradio runs without its queue, so that
    a run can show nothing before its end. Requests whose headers `is_foreign` finds are refused.
    """

    setting: Callable[[str], Any] = default_setting
    notices: Callable[[], Sequence[str]] = no_notices
    targets: tuple[Target, ...] = ()
    streams: bool = True
    is_foreign: Callable[[Mapping[str, str]], bool] = OWN_ONLY.is_foreign
