"""Rows of text and the code behind them name the same things."""

from __future__ import annotations

import argparse
from dataclasses import fields
from importlib import import_module

import pytest

from clip_interrogator_ext import catalog
from clip_interrogator_ext.faces import cli
from clip_interrogator_ext.options import CaptionOptions, InterrogateOptions, ModelOptions
from clip_interrogator_ext.search import modes
from clip_interrogator_ext.settings import SETTINGS


def test_modes_agree():
    """The catalog, the table of functions and the setting name the same modes in one order."""
    assert tuple(catalog.MODES) == tuple(modes.MODES) == SETTINGS["mode"].choices
    assert set(modes.MODES) >= catalog.MODES_WITH_CAPTION
    assert set(modes.DEFAULT_MAX_FLAVORS) <= set(modes.MODES)


@pytest.mark.parametrize(
    "implementation",
    sorted({row.implementation for row in catalog.CAPTIONERS.values()}
           | set(catalog.CAPTIONER_OF_MODEL_TYPE.values())),
)
def test_captioners_have_their_class(implementation):
    """Each captioner's row names a class that exists."""
    module, _, name = implementation.partition(":")
    found = getattr(import_module(f"clip_interrogator_ext.models.{module}"), name)
    assert callable(found.caption)


def test_generators_name_recommended_backbones():
    """Every target generator's backbones have a row of their own, and so have the defaults."""
    for backbones in catalog.GENERATORS.values():
        assert set(backbones) <= set(catalog.BACKBONES)
    assert catalog.DEFAULT_BACKBONE in catalog.BACKBONES
    assert catalog.DEFAULT_CAPTIONER in catalog.CAPTIONERS


def test_defaults_agree():
    """A request's defaults are those of the settings that describe its fields."""
    for options, prefix in (
        (InterrogateOptions(), ""), (ModelOptions(), ""), (CaptionOptions(), "caption_"),
    ):
        for field in fields(options):
            setting = SETTINGS.get(prefix + field.name)
            if setting is not None:
                # Words are a text in the settings, which is empty where there are none.
                assert (getattr(options, field.name) or None) == (setting.default or None)


def test_every_setting_can_be_given_on_the_command_line():
    """`page` has an option for each setting, `prompt` for all but what follows a run: it ends."""
    parser = cli._parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for command, missing in (("page", set()), ("prompt", {"after_run"})):
        given = {flag for action in commands.choices[command]._actions
                 for flag in action.option_strings}
        for key in set(SETTINGS) - missing:
            assert "--" + key.replace("_", "-") in given, key
