"""Word lists and the vectors of their phrases."""

from clip_interrogator_ext import packages

packages.require("yaml")  # asked for first, to say what to do where it fails
