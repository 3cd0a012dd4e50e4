"""How long Python's collector of cycles holds up the process of the page that runs alone."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator

import pytest
import torch

from clip_interrogator_ext.faces import cli
from clip_interrogator_ext.faces.cli import pauses
from clip_interrogator_ext.models.residency import return_free_memory


@pytest.fixture
def collected(monkeypatch) -> Iterator[None]:
    """Each collection counts as a long one; after the test the collector is as it was before."""
    monkeypatch.setattr(pauses, "_LONG_SECONDS", 0)
    callbacks = list(gc.callbacks)
    yield
    gc.callbacks[:] = callbacks
    gc.unfreeze()
    gc.collect()


def collection_seconds() -> float:
    started = time.perf_counter()
    gc.collect()
    return time.perf_counter() - started


@pytest.mark.usefixtures("collected")
def test_what_stays_is_looked_through_once(monkeypatch):
    """What comes later is still found to be garbage; without our care each look is as long."""
    stays = [[number] for number in range(2_000_000)]
    gc.collect()
    usual = min(collection_seconds() for _ in range(3))
    pauses.shorten_collections()
    gc.collect()
    assert min(collection_seconds() for _ in range(3)) < usual / 3
    assert gc.get_freeze_count() > len(stays)
    monkeypatch.setattr(pauses, "_LONG_SECONDS", 3600)
    later = torch.nn.Linear(2, 2)
    later.itself = [later]
    gone = weakref.ref(later)
    del later
    assert gone() is not None
    gc.collect()
    assert gone() is None


@pytest.mark.usefixtures("collected")
def test_the_page_is_served_so(monkeypatch):
    """And the folder of its uploads is there meanwhile."""
    before = len(gc.callbacks)
    served = []
    monkeypatch.setattr(
        cli, "_serve", lambda _, uploads: served.append((len(gc.callbacks), uploads.is_dir())) or 0
    )
    assert cli.main(["page", "--demo"]) == 0
    assert served == [(before + 1, True)]


@pytest.mark.usefixtures("collected")
def test_a_network_that_was_left_aside_gives_its_memory_back():
    """Also where it is in a cycle, which nobody looks for among what is left aside."""
    network = torch.nn.Linear(2, 2)
    network.itself = [network]
    gone = weakref.ref(network)
    gc.freeze()
    del network
    gc.collect()
    assert gone() is not None
    return_free_memory()
    assert gone() is None
