"""A small stand-in for AUTOMATIC1111's module of that name."""

from modules.shared import _events


class SdModelData:
    """As little of it as the tests need."""

    def __init__(self):
        self.sd_model = None

    def get_sd_model(self):
        raise AssertionError("this would load a checkpoint")


model_data = SdModelData()


def send_model_to_cpu(m):
    _events.append("checkpoint to cpu")


def send_model_to_device(m):
    _events.append("checkpoint to device")
