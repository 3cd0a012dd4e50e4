"""A small stand-in for Forge's module of that name."""


class Task:
    """As little of it as the tests need."""

    def __init__(self, task_id, func, args, kwargs):
        self.func, self.args, self.kwargs = func, args, kwargs
        self.result = None

    def work(self):
        self.result = self.func(*self.args, **self.kwargs)
