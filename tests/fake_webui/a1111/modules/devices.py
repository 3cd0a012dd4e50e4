"""A small stand-in for AUTOMATIC1111's module of that name."""

import torch
from modules.shared import _events

dtype = torch.float16
_interrogate = torch.device("cpu")


def get_device_for(task):
    return _interrogate if task == "interrogate" else torch.device("meta")


def torch_gc():
    _events.append("gc")
