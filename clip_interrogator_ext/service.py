"""The one way in for every face: one task at a time, with progress, a stop, and memory kept."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clip_interrogator_ext import catalog, packages
from clip_interrogator_ext.errors import (
    BadWordList,
    InterrogatorError,
    Interrupted,
    NotAllowed,
    OutOfMemory,
    is_panic,
)
from clip_interrogator_ext.host import (
    Host,
    Progress,
    StandaloneHost,
    as_path,
    names_a_path,
    user_cache_dir,
)
from clip_interrogator_ext.images import as_picture
from clip_interrogator_ext.options import InterrogateOptions, ModelOptions
from clip_interrogator_ext.results import Look, Status
from clip_interrogator_ext.runs import Runs, RunState

if TYPE_CHECKING:
    from PIL import Image

    from clip_interrogator_ext.interrogator import Interrogator, Prepared
    from clip_interrogator_ext.results import Analysis, ModelPlace, Prompt, Run
    from clip_interrogator_ext.vocabulary.lists import Category
    from clip_interrogator_ext.vocabulary.own import OwnLists
    from clip_interrogator_ext.vocabulary.sets import WordSet

    Lists = tuple[Mapping[str, Category], dict[str, WordSet]]

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

_SMALLER = 4  # how much smaller the chunks are after memory ran out once


class Series:
    """The runs of one thread, which hold the device together while nobody else wants it."""

    def __init__(
        self, host: Host, take_turn: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._host = host
        self._take_turn = take_turn
        self.lists: Lists | None = None
        """Those that its first question found, which it goes on with."""
        self._held: AbstractContextManager[None] | None = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the device for one run."""
        if self._held is None:
            turn = self._take_turn()
            turn.__enter__()
            self._held = turn
        try:
            yield
        finally:
            self.give_way()

    def give_way(self) -> None:
        """Let others have the device, if they wait."""
        if self._host.others_wait():
            self.close()

    def close(self) -> None:
        """Let go of the device."""
        held, self._held = self._held, None
        if held is not None:
            held.__exit__(None, None, None)


class Service:
    """Answers about pictures, one task after another, and keeps the networks for the next.

    `cache_dir` holds the vectors of word lists; `lists_dir` the user's own lists and sets;
    `wildcards_dir` and `interrogate_dir` lists as Dynamic Prompts and AUTOMATIC1111 have them.
    Torch is imported at the first question. A task may be given a name, by which others follow and
    stop it.
    """

    def __init__(
        self,
        host: Host | None = None,
        *,
        cache_dir: str | Path | None = None,
        lists_dir: str | Path | None = None,
        wildcards_dir: str | Path | None = None,
        interrogate_dir: str | Path | None = None,
    ) -> None:
        self.host: Host = StandaloneHost() if host is None else host
        self.use_folders(cache_dir, lists_dir, wildcards_dir, interrogate_dir)
        self._interrogator: Interrogator | None = None
        self._made_of: tuple[object, ...] = ()
        self._runs = Runs()
        self._here = threading.local()  # the series of each thread
        self._smaller: dict[ModelOptions, ModelOptions] = {}  # after memory ran out once

    def use_folders(
        self,
        cache_dir: str | Path | None = None,
        lists_dir: str | Path | None = None,
        wildcards_dir: str | Path | None = None,
        interrogate_dir: str | Path | None = None,
    ) -> None:
        """Change the folders; word lists are read anew at the next question if they changed."""
        self.cache_dir = as_path(cache_dir) if cache_dir else user_cache_dir()
        self._lists_dir = as_path(lists_dir) if lists_dir else None
        others = {"wildcards": wildcards_dir, "interrogate": interrogate_dir}
        self._others = {name: as_path(folder) for name, folder in others.items() if folder}

    def lists_folder(self) -> Path:
        """Return the folder of the user's own word lists, which may not be there yet."""
        return self._lists_dir or self.host.lists_dir

    def categories(self) -> Mapping[str, Category]:
        """Return all word lists by name, also other programs'; each is read when asked for."""
        from clip_interrogator_ext.vocabulary.lists import load_categories

        return load_categories(self._own_folder(), self._other_lists())

    def _other_lists(self) -> dict[str, Path]:
        """Return the folders of other programs' lists by what stands before their colon."""
        from clip_interrogator_ext.vocabulary import classic

        return {**classic.folders(), **self.host.other_lists, **self._others}

    def positive_categories(self) -> tuple[str, ...]:
        """Return the names of the word lists that prompts are made from, in their order.

        Those of other programs take part only where they are named.
        """
        from clip_interrogator_ext.vocabulary.lists import list_places, positive_names

        return positive_names(list_places(self._own_folder()))

    def lists(self) -> Lists:
        """Return the word lists and sets that a question of this thread is answered with.

        In a series they stay those of its first question, whatever becomes of the files.
        """
        series: Series | None = getattr(self._here, "series", None)
        if series is not None and series.lists is not None:
            return series.lists
        found = self.categories(), self.word_sets()
        if series is not None:
            series.lists = found
        return found

    def word_sets(self) -> dict[str, WordSet]:
        """Return the sets of word lists by name, "all" first; reads no list."""
        from clip_interrogator_ext.vocabulary.lists import list_places
        from clip_interrogator_ext.vocabulary.sets import load_sets

        return load_sets(
            list_places(self._own_folder(), self._other_lists()), self._own_folder()
        )

    def _own_folder(self) -> Path | None:
        """Return the folder of the user's lists; one that nobody has named may be missing."""
        return self._lists_dir or (self.host.lists_dir if self.host.lists_dir.is_dir() else None)

    def list_text(self, name: str) -> str:
        """Return an own list as it is written, of another one its lines; raises BadWordList."""
        category = self.categories().get(name)
        if category is None:
            raise BadWordList(f"There is no word list {name!r}.")
        if category.own and category.path is not None and category.path.is_file():
            return self._own_lists().text(name)
        return "".join(f"{line}\n" for line in category.lines)

    def save_list(self, name: str, text: str) -> list[str]:
        """Write a list of the user's own; return what is wrong with its lines, as sentences.

        Raises BadWordList or NotAllowed.
        """
        self._require_trust("Changing word lists")
        return list(self._own_lists().save(name, text))

    def add_to_list(self, name: str, lines: Sequence[str]) -> int:
        """Add lines to a list of the user's own, or make it; return how many were new.

        Raises BadWordList or NotAllowed.
        """
        self._require_trust("Changing word lists")
        return self._own_lists().add(name, lines)

    def import_list(self, path: Path, name: str) -> str:
        """Take a file over among the user's own lists; `name` is what the file is called.

        Returns the list's name. Raises BadWordList or NotAllowed.
        """
        self._require_trust("Changing word lists")
        return self._own_lists().take_over(path, name)

    def delete_list(self, name: str) -> None:
        """Delete a list of the user's own; raises BadWordList or NotAllowed."""
        self._require_trust("Deleting word lists")
        self._own_lists().delete(name)

    def _own_lists(self) -> OwnLists:
        from clip_interrogator_ext.vocabulary.own import OwnLists

        return OwnLists(self.lists_folder())

    def get_classic(self, task: str | None = None) -> Path:
        """Install the package clip-interrogator without its dependencies, for its word lists.

        Raises BadWordList, NotAllowed or Interrupted.
        """
        from clip_interrogator_ext.vocabulary import classic

        self._require_trust("Installing packages")
        with self._runs.announced("install", task) as run:
            run.running = True
            return classic.install(self._tick_of(run))

    def ready(self, models: ModelOptions) -> dict[str, int]:
        """Return of how many phrases of each word list these backbones' vectors are kept.

        Reads files and loads no network.
        """
        from clip_interrogator_ext.models.open_clip import key_of
        from clip_interrogator_ext.vocabulary.tables import PhraseStore

        store = PhraseStore(self._vectors_dir())
        counts = {}
        for name, category in self.categories().items():
            known = [store.known(key_of(backbone), name) for backbone in models.backbones]
            kept = frozenset.intersection(*known)
            counts[name] = sum(phrase in kept for phrase in category.phrases) if kept else 0
        return counts

    def prepare(
        self,
        categories: Sequence[str] | None = None,
        models: ModelOptions | None = None,
        task: str | None = None,
    ) -> dict[str, int]:
        """Compute and keep the vectors of word lists, of all in use where none are named.

        Returns how many phrases of each were encoded now. Raises BadOption.
        """
        names = categories or [name for name in self.categories() if ":" not in name]
        self._check_lists(names)
        return self._run(
            "prepare", task, models, lambda engine, tick: engine.prepare(names, tick)
        )

    def _check_lists(self, names: Sequence[str] | None) -> None:
        """Raise BadOption for a list that is not there, before networks are loaded for it."""
        from clip_interrogator_ext.vocabulary.lists import check_known

        check_known(names, self.categories(), negative=True)

    def known_backbones(self) -> list[str]:
        """Return every architecture/pretrained pair that open_clip has weights for."""
        from clip_interrogator_ext.models import open_clip

        return open_clip.list_names()

    def place(self, name: str) -> ModelPlace | None:
        """Return where the weights of a backbone or captioner are, or None; downloads nothing."""
        from clip_interrogator_ext.models import store

        return store.place(name, self.host.models_dirs)

    def download(self, name: str, task: str | None = None) -> ModelPlace:
        """Download a model of the catalog, unless it is here; holds no device meanwhile.

        Raises NotAllowed, UnknownModel, MissingModel or Interrupted.
        """
        from clip_interrogator_ext.models import store

        self._require_trust("Downloading models")
        self._require_open(name)
        with self._runs.announced("download", task) as run:
            run.running = True
            return store.download(name, self.host.models_dirs, self._tick_of(run))

    def delete(self, name: str) -> int:
        """Delete a model from our own models folder; return how many bytes that freed.

        Raises NotAllowed, UnknownModel or MissingModel.
        """
        from clip_interrogator_ext.models import store

        self._require_trust("Deleting models")
        self._require_open(name)
        with self.host.exclusive("delete"):
            if name in {network.name for network in self.status().loaded}:
                self._close()
            return store.delete(name, self.host.models_dirs)

    def count_tokens(self, text: str) -> tuple[int, int]:
        """Return (tokens of a text, of how many): the loaded generator's count, else CLIP's."""
        counted = self.host.count_tokens(text)
        if counted is not None:
            return counted
        from clip_interrogator_ext.models import open_clip

        return open_clip.count_clip_tokens(text)

    def runs(self) -> tuple[Run, ...]:
        """Return what is running and waiting, in its order; never waits."""
        return self._runs.seen()

    def status(self) -> Status:
        """Return what is running, waiting and loaded; never waits."""
        engine = self._interrogator
        return Status(self.runs(), engine.loaded() if engine is not None else ())

    def interrupt(self, task: str | None = None) -> bool:
        """Stop the task of that name, or all of them; say whether there was one.

        Whoever asked is answered within a second, with what had been found. What can't be broken
        off, such as loading a model, ends by itself, and the next run waits for it.
        """
        return self._runs.stop(task)

    def interrogate(
        self,
        image: Image.Image | str | Path | Look,
        options: InterrogateOptions | None = None,
        models: ModelOptions | None = None,
        task: str | None = None,
    ) -> Prompt:
        """Return the prompt for a picture, its file, or a look at it; see Interrogator.interrogate.

        Where memory runs out, everything is unloaded and the task tried once more with smaller
        chunks, before OutOfMemory is raised.
        """
        seen = image if isinstance(image, Look) else as_picture(image)
        asked = options or InterrogateOptions()
        return self._run(
            "interrogate", task, models, lambda engine, tick: engine.interrogate(seen, asked, tick)
        )

    def preparer(
        self,
        models: ModelOptions | None = None,
        *,
        captions: bool = True,
        vectors: bool = True,
        task: str | None = None,
    ) -> Callable[[Image.Image], Prepared]:
        """Return what prepares pictures for `captions` and `vectors`, for any thread to call."""
        return self._run(
            "prepare", task, models,
            lambda engine, tick: engine.preparer(captions=captions, vectors=vectors, tick=tick),
        )

    def captions(
        self,
        pictures: Sequence[Prepared],
        options: InterrogateOptions | None = None,
        models: ModelOptions | None = None,
        task: str | None = None,
    ) -> list[str]:
        """Return the captions of several prepared pictures, as many at once as memory allows."""
        asked = options or InterrogateOptions()
        return self._run(
            "captions", task, models, lambda engine, tick: engine.captions(pictures, asked, tick)
        )

    def vectors(
        self,
        pictures: Sequence[Prepared],
        models: ModelOptions | None = None,
        task: str | None = None,
    ) -> list[tuple[tuple[float, ...], ...]]:
        """Return the unit vectors of several prepared pictures, one for each backbone."""
        return self._run(
            "vectors", task, models, lambda engine, tick: engine.vectors(pictures, tick)
        )

    @contextmanager
    def series(self, task: str) -> Iterator[Series]:
        """Hold the device over many runs of this thread, but let others have it between two.

        So networks, and what made room for them, are moved only when the device changes hands.
        """
        series = self._here.series = Series(self.host, lambda: self._turn(task))
        try:
            yield series
        finally:
            self._here.series = None
            series.close()

    def analyze(
        self,
        image: Image.Image | str | Path,
        models: ModelOptions | None = None,
        top: int = 5,
        task: str | None = None,
        categories: tuple[str, ...] | None = None,
    ) -> Analysis:
        """Return the `top` phrases of each category nearest to a picture.

        `categories` names word lists or parts of them, in place of those that are in use.
        """
        upright = as_picture(image)
        self._check_lists(categories)
        return self._run(
            "analyze", task, models,
            lambda engine, tick: engine.analyze(upright, top, tick, categories),
        )

    def similarity(
        self,
        image: Image.Image | str | Path,
        texts: Sequence[str],
        models: ModelOptions | None = None,
        task: str | None = None,
    ) -> list[float]:
        """Return the cosine of each text's vector and the picture's."""
        upright = as_picture(image)
        return self._run(
            "similarity", task, models,
            lambda engine, tick: engine.similarity(upright, texts, tick),
        )

    def check(self, options: InterrogateOptions, models: ModelOptions) -> None:
        """Raise what can be told of a question before any network is loaded.

        That is NotAllowed, UnknownModel or BadOption.
        """
        from clip_interrogator_ext.vocabulary.sets import set_of

        self._require_allowed(models)
        for name in {*models.backbones, models.captioner} - {catalog.NO_CAPTIONER}:
            self.place(name)  # which knows the name, or refuses it
        set_of(options, self.word_sets(), self.categories())
        if options.asks_caption and models.captioner == catalog.NO_CAPTIONER:
            raise options.no_caption()

    def unload(self) -> None:
        """Let go of all networks and give their memory back; waits for the running task."""
        with self.host.exclusive("unload"):
            self._close()
            self._smaller.clear()

    def _run(
        self,
        kind: str,
        task: str | None,
        models: ModelOptions | None,
        work: Callable[[Interrogator, Progress], Answer],
    ) -> Answer:
        asked = models or ModelOptions()
        self._require_allowed(asked)
        series: Series | None = getattr(self._here, "series", None)

        def do(run: RunState) -> Answer:
            with self._turn(run.task) if series is None else series.turn():
                run.running = True
                tick = self._tick_of(run)
                tick("", 0, 0)  # it may have been stopped while it waited
                return self._twice(asked, work, tick)

        if series is None and not self.host.holds_device():
            return self._runs.answer(kind, task, do, self.host.interrupted)
        # This very thread has the device.
        with self._runs.announced(kind, task) as run:
            return do(run)

    @contextmanager
    def _turn(self, task: str) -> Iterator[None]:
        with self.host.exclusive(task):
            try:
                yield
            finally:
                self._after_run()

    def _twice(
        self,
        asked: ModelOptions,
        work: Callable[[Interrogator, Progress], Answer],
        tick: Progress,
    ) -> Answer:
        """Do the work, and where memory runs out once more, with smaller chunks."""
        models = self._smaller.get(asked, asked)
        try:
            with self._closed_on_failure():
                return work(self._engine(models, tick), tick)
        except OutOfMemory:
            smaller = replace(models, chunk_size=max(1, models.chunk_size // _SMALLER))
            log.warning("Memory ran out; trying once more with chunks of %d.", smaller.chunk_size)
            self.host.make_room()
        with self._closed_on_failure():
            answer = work(self._engine(smaller, tick), tick)
        self._smaller[asked] = smaller
        return answer

    def _after_run(self) -> None:
        if self.host.after_run == "unload":
            self._close()
        elif self.host.after_run == "offload" and self._interrogator is not None:
            self._interrogator.offload()

    @property
    def paths_open(self) -> bool:
        """Whether whoever asks may name any path of this machine, and be told them."""
        return self.host.trusted and not self.host.paths_hidden

    def require_folders(self) -> None:
        """Raise NotAllowed where whoever asks may not name folders of this machine."""
        if not self.paths_open:
            raise NotAllowed(
                "Folders of this machine are closed here, because the WebUI was started with "
                "--hide-ui-dir-config, or listens to other machines without "
                "--enable-insecure-extension-access. Upload the pictures in the tab instead."
            )

    def _require_trust(self, what: str) -> None:
        if not self.host.trusted:
            raise NotAllowed(
                f"{what} is switched off here, because the WebUI listens to other machines. "
                "Start it with --enable-insecure-extension-access to allow it."
            )

    def _require_allowed(self, models: ModelOptions) -> None:
        """Refuse paths that whoever asks may not name, and to strangers what would be downloaded.

        What the owner has chosen in the settings is open to all.
        """
        if self.paths_open:
            return
        open_to_all = {catalog.DEMO, catalog.NO_CAPTIONER, *self.host.chosen_models}
        for name in {*models.backbones, models.captioner} - open_to_all:
            self._require_open(name)
            if not self.host.trusted and self.place(name) is None:
                self._require_trust(f"{name} is not on this machine, and downloading models")

    def _require_open(self, name: str) -> None:
        """Refuse a model's name that is a path which whoever asks may not name.

        What is said is the same whether anything is there or not.
        """
        from clip_interrogator_ext.models import store

        hidden = self.host.paths_hidden
        if self.paths_open or (not hidden and store.is_within(name, self.host.models_dirs)):
            return
        if not names_a_path(name):
            store.require_published(name)
        elif hidden:
            raise NotAllowed(
                "Naming paths of this machine is switched off here, because the WebUI was started "
                "with --hide-ui-dir-config. Choose a model by its name, or in the settings."
            )
        else:
            self._require_trust("Naming a path outside the models folders")

    def without_paths(self, text: str) -> str:
        """Return a text without this machine's folders, for whoever may not know them."""
        if not self.paths_open:
            for folder in self.host.models_dirs:
                text = text.replace(str(folder), "(models folder)")
            text = text.replace(str(self.cache_dir.absolute()), "(cache folder)")
            for folder in (self.lists_folder(), *self._other_lists().values()):
                text = text.replace(str(folder.absolute()), "(lists folder)")
            home = str(as_path("~"))
            text = text.replace(home, "~") if len(home) > 1 else text
        return text

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        """Unload everything when memory runs out or something unforeseen happens."""
        from clip_interrogator_ext.models.residency import memory_errors

        try:
            with memory_errors():
                yield
        except BaseException as error:
            # The frames of the traceback would keep networks and tensors alive.
            traceback.clear_frames(error.__traceback__)
            foreseen = isinstance(error, InterrogatorError) and not is_panic(error.__cause__)
            if isinstance(error, OutOfMemory) or not foreseen:
                self._close()
            raise

    def _engine(self, models: ModelOptions, tick: Progress) -> Interrogator:
        """Return the interrogator for these models, which is kept until others are asked for."""
        packages.require(*packages.FOUNDATIONS)
        from clip_interrogator_ext.interrogator import Interrogator
        from clip_interrogator_ext.vocabulary.tables import PhraseStore

        host = self.host
        made_of = models, self.cache_dir, host.device, host.dtype, host.models_dirs
        categories, sets = self.lists()
        if self._interrogator is None or self._made_of != made_of:
            self._close()
            store = PhraseStore(self._vectors_dir())
            self._interrogator = Interrogator(models, self.host, categories, store, tick)
            self._made_of = made_of
        self._interrogator.use(categories, sets)
        return self._interrogator

    def _vectors_dir(self) -> Path:
        return self.cache_dir / "vectors"

    def _close(self) -> None:
        engine, self._interrogator = self._interrogator, None
        if engine is not None:
            engine.close()

    def _tick_of(self, run: RunState) -> Progress:
        def tick(label: str, done: int, total: int) -> None:
            if run.stopped.is_set() or self.host.interrupted(run.task):
                raise Interrupted("The run was stopped.")
            if label:
                run.report(label, done, total)
                self.host.progress(label, done, total)

        return tick
