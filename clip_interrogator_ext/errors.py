"""What can go wrong, as sentences for whoever can put it right.

InterrogatorError
├── BadImage          the picture can't be read
│   └── TooLarge      the picture has too many bytes or pixels
├── BadOption         an option has a value that it can't have
├── BadWordList       a word list can't be used
├── UnknownModel      no model of that name is known
├── MissingModel      the model is known, but its weights are not here and can't be had
├── UnsafeWeights     a weights file is of a kind that we don't read
├── BrokenModel       the weights are here, but don't make a working model
├── BrokenPackage     a package that is needed is missing, too old, or can't be imported
├── NotAllowed        the program around us forbids it
├── OutOfMemory       the device's memory was not enough
├── QueueFull         so many wait already that no more are taken
└── Interrupted       the run was stopped from outside
"""

from __future__ import annotations


class InterrogatorError(Exception):
    """Base of all errors that this package raises on purpose."""


def is_panic(error: BaseException | None) -> bool:
    """Say whether a library written in Rust has broken down, as tokenizers and safetensors may.

    Its error is no Exception, so that it would pass by whoever catches those.
    """
    return type(error).__name__ == "PanicException" and not isinstance(error, Exception)


class BadImage(InterrogatorError):
    """The picture can't be read."""


class TooLarge(BadImage):
    """The picture has too many bytes or pixels."""


class BadOption(InterrogatorError):
    """An option has a value that it can't have; `field` names the option."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class BadWordList(InterrogatorError):
    """A word list can't be used."""


class UnknownModel(InterrogatorError):
    """No model of that name is known; `nearest` holds the names most like it."""

    def __init__(self, message: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.nearest = nearest


class MissingModel(InterrogatorError):
    """The model is known, but its weights are not here and can't be had."""


class UnsafeWeights(InterrogatorError):
    """A weights file is of a kind that we don't read."""


class BrokenModel(InterrogatorError):
    """The weights are here, but don't make a working model."""


class BrokenPackage(InterrogatorError):
    """A package that is needed is missing, too old, or can't be imported."""


class NotAllowed(InterrogatorError):
    """The program around us forbids it."""


class OutOfMemory(InterrogatorError):
    """The device's memory was not enough."""


class QueueFull(InterrogatorError):
    """So many wait already that no more are taken."""


class Interrupted(InterrogatorError):
    """The run was stopped from outside."""
