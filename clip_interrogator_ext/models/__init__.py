"""The networks: backbones that rank, captioners that write."""

from clip_interrogator_ext import packages

packages.require(*packages.FOUNDATIONS)  # asked for first, to say what to do where one fails
