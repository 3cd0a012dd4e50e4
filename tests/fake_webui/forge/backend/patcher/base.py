"""A small stand-in for Forge's module of that name."""


class ModelPatcher:
    """As little of it as the tests need."""

    def __init__(self, model, load_device, offload_device, size=0, current_device=None, **kwargs):
        self.model = model
        self.load_device, self.offload_device = load_device, offload_device
