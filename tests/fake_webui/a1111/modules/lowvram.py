"""A small stand-in for AUTOMATIC1111's module of that name."""

from modules.shared import _events


def send_everything_to_cpu():
    _events.append("lowvram to cpu")


def is_enabled(sd_model):
    return sd_model.lowvram
