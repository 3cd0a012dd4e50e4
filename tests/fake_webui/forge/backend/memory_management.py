"""A small stand-in for Forge's module of that name."""

from types import SimpleNamespace

import torch
from modules.shared import _events

current_loaded_models = []
_device = torch.device("cpu")


def text_encoder_device():
    return _device


def text_encoder_offload_device():
    return torch.device("cpu")


def should_use_fp16(device=None, model_params=0, prioritize_performance=True, manual_cast=False):
    return device.type != "cpu"


def load_models_gpu(models, memory_required=0, hard_memory_preservation=0):
    _events.append("load")
    for model in models:
        if all(one.model is not model for one in current_loaded_models):
            current_loaded_models.insert(0, SimpleNamespace(model=model))


def unload_model_clones(model):
    _events.append("unload")
    current_loaded_models[:] = [one for one in current_loaded_models if one.model is not model]


def get_torch_device():
    return _device


def unload_all_models():
    _events.append("unload all")
    current_loaded_models.clear()
