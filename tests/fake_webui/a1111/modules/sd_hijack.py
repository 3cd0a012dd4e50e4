"""A small stand-in for AUTOMATIC1111's module of that name."""


class StableDiffusionModelHijack:
    """As little of it as the tests need."""

    def get_prompt_lengths(self, text):
        return len(text.split()), 75


model_hijack = StableDiffusionModelHijack()
