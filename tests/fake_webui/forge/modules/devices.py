"""A small stand-in for Forge's module of that name."""

from modules.shared import _events


def torch_gc():
    _events.append("gc")
