"""The one way in for every face: one task at a time, with progress, a stop, and memory kept."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clip_interrogator_ext.errors import InterrogatorError, Interrupted, OutOfMemory
from clip_interrogator_ext.host import Host, StandaloneHost, as_path, user_cache_dir
from clip_interrogator_ext.images import as_picture
from clip_interrogator_ext.options import InterrogateOptions, ModelOptions

if TYPE_CHECKING:
    from PIL import Image

    from clip_interrogator_ext.interrogator import Interrogator
    from clip_interrogator_ext.results import Analysis, Prompt
    from clip_interrogator_ext.vocabulary.lists import Category

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

_SMALLER = 4  # how much smaller the chunks are after memory ran out once


class Service:
    """Answers about pictures, one task after another, and keeps the networks for the next.

    `cache_dir` holds the vectors of word lists; `lists_dir` the user's own lists. Torch is
    imported at the first question.
    """

    def __init__(
        self,
        host: Host | None = None,
        *,
        cache_dir: str | Path | None = None,
        lists_dir: str | Path | None = None,
    ) -> None:
        self.host: Host = StandaloneHost() if host is None else host
        self._cache_dir = as_path(cache_dir) if cache_dir else user_cache_dir()
        self._lists_dir = as_path(lists_dir) if lists_dir else None
        self._interrogator: Interrogator | None = None
        self._smaller: dict[ModelOptions, ModelOptions] = {}  # after memory ran out once

    def categories(self) -> dict[str, Category]:
        """Return the word lists in use by name."""
        from clip_interrogator_ext.vocabulary.lists import load_categories

        return load_categories(self._lists_dir)

    def known_backbones(self) -> list[str]:
        """Return every architecture/pretrained pair that open_clip has weights for."""
        from clip_interrogator_ext.models import open_clip

        return open_clip.list_names()

    def backbone_is_here(self, name: str) -> bool:
        """Say whether a backbone's weights are on this machine; downloads nothing."""
        from clip_interrogator_ext.models import open_clip

        return open_clip.find_checkpoint(name, self.host.models_dir) is not None

    def captioner_is_here(self, name: str) -> bool:
        """Say whether a captioner's weights are on this machine; downloads nothing."""
        from clip_interrogator_ext.models import captioning

        return captioning.is_here(name, self.host.models_dir)

    def interrogate(
        self,
        image: Image.Image | str | Path,
        options: InterrogateOptions | None = None,
        models: ModelOptions | None = None,
    ) -> Prompt:
        """Return the prompt for a picture or a picture's file; see Interrogator.interrogate.

        Where memory runs out, everything is unloaded and the task tried once more with smaller
        chunks, before OutOfMemory is raised.
        """
        upright, asked = as_picture(image), options or InterrogateOptions()
        return self._run(
            "interrogate", models, lambda engine: engine.interrogate(upright, asked, self._tick)
        )

    def analyze(
        self, image: Image.Image | str | Path, models: ModelOptions | None = None, top: int = 5
    ) -> Analysis:
        """Return the `top` phrases of each category nearest to a picture."""
        upright = as_picture(image)
        return self._run("analyze", models, lambda engine: engine.analyze(upright, top, self._tick))

    def similarity(
        self,
        image: Image.Image | str | Path,
        texts: Sequence[str],
        models: ModelOptions | None = None,
    ) -> list[float]:
        """Return the cosine of each text's vector and the picture's."""
        upright = as_picture(image)
        return self._run(
            "similarity", models, lambda engine: engine.similarity(upright, texts, self._tick)
        )

    def unload(self) -> None:
        """Let go of all networks and give their memory back; waits for the running task."""
        with self.host.exclusive("unload"):
            self._close()

    def _run(
        self,
        task: str,
        models: ModelOptions | None,
        work: Callable[[Interrogator], Answer],
    ) -> Answer:
        asked = models or ModelOptions()
        with self.host.exclusive(task):
            models = self._smaller.get(asked, asked)
            try:
                with self._closed_on_failure():
                    return work(self._engine(models))
            except OutOfMemory:
                smaller = replace(models, chunk_size=max(1, models.chunk_size // _SMALLER))
                log.warning(
                    "Memory ran out; trying once more with chunks of %d.", smaller.chunk_size
                )
            with self._closed_on_failure():
                answer = work(self._engine(smaller))
            self._smaller[asked] = smaller
            return answer

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        """Unload everything when memory runs out or something unforeseen happens."""
        try:
            yield
        except BaseException as error:
            # The frames of the traceback would keep networks and tensors alive.
            traceback.clear_frames(error.__traceback__)
            if isinstance(error, OutOfMemory) or not isinstance(error, InterrogatorError):
                self._close()
            raise

    def _engine(self, models: ModelOptions) -> Interrogator:
        """Return the interrogator for these models, which is kept until others are asked for."""
        from clip_interrogator_ext.interrogator import Interrogator
        from clip_interrogator_ext.vocabulary.tables import PhraseStore

        if self._interrogator is None or self._interrogator.models != models:
            self._close()
            store = PhraseStore(self._cache_dir / "vectors")
            self._interrogator = Interrogator(models, self.host, self.categories(), store)
        return self._interrogator

    def _close(self) -> None:
        engine, self._interrogator = self._interrogator, None
        if engine is not None:
            engine.close()

    def _tick(self, label: str, done: int, total: int) -> None:
        if self.host.interrupted():
            raise Interrupted("The run was stopped.")
        if label:
            self.host.progress(label, done, total)
