"""A small stand-in for Forge's module of that name."""


class FakeInitialModel:
    """As little of it as the tests need."""

    def get_prompt_lengths_on_ui(self, prompt):
        return 0, 75


class SdModelData:
    """As little of it as the tests need."""

    def __init__(self):
        self.sd_model = FakeInitialModel()


model_data = SdModelData()
