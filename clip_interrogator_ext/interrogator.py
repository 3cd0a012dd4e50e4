"""The engine: a picture goes in, a prompt comes out."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import BadOption, Interrupted, OutOfMemory
from clip_interrogator_ext.models import captioning, open_clip
from clip_interrogator_ext.models.base import Captioner, Network, Tick, no_tick
from clip_interrogator_ext.models.residency import (
    Residency,
    ResidentEncoder,
    dtype_for,
    memory_errors,
    resolve_device,
    return_free_memory,
    size_bytes,
)
from clip_interrogator_ext.options import InterrogateOptions, ModelOptions
from clip_interrogator_ext.results import Analysis, Loaded, Look, Part, Prompt
from clip_interrogator_ext.search.modes import (
    MODES,
    Draft,
    Scene,
    Stage,
    Vocabulary,
)
from clip_interrogator_ext.search.scorer import Scorer
from clip_interrogator_ext.vocabulary.lists import (
    Category,
    check_known,
    load_categories,
    positive_names,
    role_of,
)
from clip_interrogator_ext.vocabulary.sets import (
    Choice,
    WordSet,
    load_sets,
    set_of,
)
from clip_interrogator_ext.vocabulary.tables import PhraseStore, Table, merge
from clip_interrogator_ext.words import WordRules

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from clip_interrogator_ext.host import Host
    from clip_interrogator_ext.models.open_clip import OpenClip

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

_PHRASES_A_TICK = 200
_KEPT_VOCABULARIES = 2  # one for the prompt, one for its negative: each is a copy of its tables


@dataclass(frozen=True)
class Prepared:
    """A picture as the networks read it: for the captioner, and for each backbone, on the CPU."""

    caption: Tensor | None
    vectors: tuple[Tensor, ...]


class Interrogator:
    """Networks and word lists, ready to answer about pictures.

    Backbones are loaded when the interrogator is made, the captioner when a caption is first
    needed, a category's vectors when it is first used. Raises UnknownModel, MissingModel,
    UnsafeWeights, BrokenModel or OutOfMemory.
    """

    def __init__(
        self,
        models: ModelOptions,
        host: Host,
        categories: Mapping[str, Category],
        store: PhraseStore,
        tick: Tick = no_tick,
    ) -> None:
        self.models = models
        self._categories = categories
        self._sets: Mapping[str, WordSet] = load_sets(categories)
        self._host = host
        self._store, self._unkept = store, PhraseStore(None)
        self._device = resolve_device(host.device)
        self._dtype = dtype_for(self._device, host.dtype)
        self._residency = Residency(self._device, host, low_memory=models.low_memory)
        self._captioner: Captioner | None = None
        self._tables: dict[str, Table] = {}
        self._vocabularies: dict[tuple[object, ...], Vocabulary] = {}
        self._rules: dict[tuple[object, ...], WordRules] = {}
        self._used_lists: set[str] = set()  # those that tables, vocabularies and rules come from
        self._at_once = models.chunk_size  # pictures in one forward pass
        with memory_errors():
            self.encoders: tuple[OpenClip, ...] = tuple(
                open_clip.load(
                    name,
                    device=self._device,
                    dtype=self._dtype,
                    models_dirs=host.models_dirs,
                    chunk_size=models.chunk_size,
                    tick=tick,
                )
                for name in models.backbones
            )

    @property
    def demo(self) -> bool:
        """Whether a bundled demo model takes part."""
        return catalog.DEMO in (*self.models.backbones, self.models.captioner)

    def use(self, categories: Mapping[str, Category], sets: Mapping[str, WordSet]) -> None:
        """Take these word lists and sets from now on; vectors of lists that are the same stay."""
        changed = {
            name for name in self._used_lists
            if categories.get(name) is not self._categories.get(name)
        }
        if changed or sets != self._sets or list(categories) != list(self._categories):
            self._vocabularies.clear()
            self._rules.clear()
        for name in changed:
            self._tables.pop(name, None)
        self._categories, self._sets = categories, sets

    def interrogate(
        self, image: Image.Image | Look, options: InterrogateOptions, tick: Tick = no_tick
    ) -> Prompt:
        """Return the prompt for an upright RGB picture, or for what was seen of one.

        Stopped by `tick`, it returns what had been found, marked as interrupted; where nothing
        had been found yet it raises Interrupted. Raises BadOption, BadWordList, OutOfMemory and
        what loading a captioner may raise.
        """
        started = time.perf_counter()
        self._set(options)
        scene = self.look(image, options, tick)
        draft = self._answer(scene, options, tick)
        prompt = self._explain(scene, draft, options)
        negative = None
        if options.negative and options.mode != "negative" and not prompt.interrupted:
            negative = self._negative(scene, options, tick)
        return replace(
            prompt,
            negative=negative,
            seconds=time.perf_counter() - started,
            interrupted=prompt.interrupted or bool(negative and negative.interrupted),
        )

    def look(
        self, image: Image.Image | Look, options: InterrogateOptions, tick: Tick = no_tick
    ) -> Scene:
        """Look at a picture once: its caption, if the mode needs one, and its vectors."""
        if not isinstance(image, Look):
            asks = options.asks_caption and self.models.captioner != catalog.NO_CAPTIONER
            seen = [self.preparer(captions=asks, tick=tick)(image)]
            said = self.captions(seen, options, tick)[0] if asks else None
            image = Look(said, self.vectors(seen, tick)[0])
        caption = ""
        if options.mode in catalog.MODES_WITH_CAPTION:
            said = image.caption if options.caption is None else options.caption
            if said is None:
                raise options.no_caption()
            caption = self._word_rules(options).text(said)
        vectors = tuple(torch.tensor(vector) for vector in image.vectors)
        return Scene(caption, Scorer(self.resident_encoders(), vectors, tick))

    def resident_encoders(self) -> tuple[ResidentEncoder, ...]:
        """Return the backbones, each of which comes to the device when it is asked something."""
        return tuple(ResidentEncoder(encoder, self._residency) for encoder in self.encoders)

    def preparer(
        self, *, captions: bool = True, vectors: bool = True, tick: Tick = no_tick
    ) -> Callable[[Image.Image], Prepared]:
        """Return what prepares upright RGB pictures for `captions` and `vectors`.

        It may be called by any thread, and outlives the networks.
        """
        for_caption = self._captioner_for(tick).preprocess if captions else None
        for_vectors = [encoder.preprocess for encoder in self.encoders if vectors]

        def prepare(image: Image.Image) -> Prepared:
            with memory_errors():
                return Prepared(
                    None if for_caption is None else for_caption(image),
                    tuple(preprocess(image) for preprocess in for_vectors),
                )

        return prepare

    def captions(
        self, pictures: Sequence[Prepared], options: InterrogateOptions, tick: Tick = no_tick
    ) -> list[str]:
        """Return what the captioner says of pictures that were prepared for it."""
        pixels = torch.stack([_required(picture.caption) for picture in pictures])
        captioner = self._captioner_for(tick)
        length = options.captioning.max_length
        tick("caption", 0, length)

        def write(part: Tensor) -> list[str]:
            with self._residency.on_device(captioner):
                return captioner.captions(part, options.captioning, tick)

        said = [caption for part in self._in_parts(pixels, write) for caption in part]
        tick("caption", length, length)  # captions end before their greatest length
        return said

    def vectors(
        self, pictures: Sequence[Prepared], tick: Tick = no_tick
    ) -> list[tuple[tuple[float, ...], ...]]:
        """Return each prepared picture's unit vectors, one for each backbone."""
        encoders = self.resident_encoders()
        columns: list[list[tuple[float, ...]]] = []
        for index, encoder in enumerate(encoders):
            tick("Looking", index, len(encoders))
            pixels = torch.stack([picture.vectors[index] for picture in pictures])
            parts = self._in_parts(pixels, encoder.encode_images)
            columns.append([tuple(row) for part in parts for row in part.tolist()])
        tick("Looking", len(encoders), len(encoders))
        return list(zip(*columns, strict=True))

    def _in_parts(self, pixels: Tensor, work: Callable[[Tensor], Answer]) -> list[Answer]:
        """Do work on pictures, as many at once as memory allows: half of them when it runs out."""
        answers: list[Answer] = []
        done = 0
        while done < len(pixels):
            part = pixels[done : done + self._at_once]
            try:
                answers.append(work(part))
            except OutOfMemory:
                if len(part) == 1:
                    raise
                self._at_once = len(part) // 2
                log.warning("Memory ran out; looking at %d pictures at once.", self._at_once)
                continue
            done += len(part)
        return answers

    def _captioner_for(self, tick: Tick) -> Captioner:
        if self._captioner is None:
            with memory_errors():
                self._captioner = captioning.load_captioner(
                    self.models.captioner, self._host.models_dirs, self._device.type, self._dtype,
                    tick,
                )
        return self._captioner

    def analyze(
        self,
        image: Image.Image,
        top: int = 5,
        tick: Tick = no_tick,
        categories: tuple[str, ...] | None = None,
    ) -> Analysis:
        """Return the `top` phrases of each category nearest to a picture.

        `categories` names lists or parts of them in place of the positive ones.
        """
        started = time.perf_counter()
        names = positive_names(self._categories) if categories is None else categories
        check_known(names, self._categories, negative=True)
        scorer = self.look(image, InterrogateOptions(mode="style"), tick).scorer
        answer = {}
        for choice in map(Choice, names):
            table = self._choose(choice, WordRules(), tick)
            best = table.select(scorer.nearest(table, top))
            answer[choice.list] = tuple(
                zip(best.phrases, scorer.table(best).tolist(), strict=True)
            )
        return Analysis(answer, time.perf_counter() - started, self.demo)

    def prepare(self, categories: Sequence[str], tick: Tick = no_tick) -> dict[str, int]:
        """Compute and keep the vectors of lists; return how many phrases of each were encoded.

        Raises BadOption for a list that is not there.
        """
        encoded = {}
        for name in categories:
            if name not in self._categories:
                raise BadOption("categories", f"There is no word list {name!r}.")
            counts = []
            for encoder in self.resident_encoders():
                before = self._store.encoded
                self._store.vectors(encoder, name, self._categories[name].phrases, tick)
                counts.append(self._store.encoded - before)
            encoded[name] = max(counts)
        return encoded

    def similarity(
        self, image: Image.Image, texts: Sequence[str], tick: Tick = no_tick
    ) -> list[float]:
        """Return the cosine of each text's vector and the picture's."""
        for encoder in self.encoders:
            encoder.forget()
        scorer = self.look(image, InterrogateOptions(mode="style"), tick).scorer
        return [float(score) for score in scorer.texts(list(texts))]

    def loaded(self) -> tuple[Loaded, ...]:
        """Return the networks that are in memory, on the device or off it."""
        captioner = self._captioner
        return (
            *(_loaded(encoder, "backbone") for encoder in self.encoders),
            *([_loaded(captioner, "captioner")] if captioner is not None else []),
        )

    def offload(self) -> None:
        """Move all networks to the CPU's memory; they come back when they are needed."""
        for encoder in self.encoders:
            encoder.forget()
        for network in self._residency.resident():
            self._residency.send_away(network)

    def close(self) -> None:
        """Let go of all networks and vectors, and give their memory back."""
        networks = (*self.encoders, *([self._captioner] if self._captioner else []))
        modules = [weakref.ref(network.module) for network in networks]
        del networks
        self._captioner = None
        self.encoders = ()
        self._tables.clear()
        self._vocabularies.clear()
        self._residency.clear()
        return_free_memory(cycles=any(module() is not None for module in modules))

    def _answer(self, scene: Scene, options: InterrogateOptions, tick: Tick) -> Draft:
        try:
            vocabulary = self._vocabulary(options, tick)
            for encoder in self.encoders:
                encoder.forget()  # so that the same picture has the same answer to the last bit
            return MODES[options.mode](scene, vocabulary, options)
        except Interrupted:
            if not scene.caption:
                raise
            said = MODES["caption"](scene, Vocabulary(), options)
            return replace(said, interrupted=True)

    def _negative(self, scene: Scene, options: InterrogateOptions, tick: Tick) -> Prompt | None:
        started = time.perf_counter()
        options = replace(options, mode="negative")
        try:
            draft = self._answer(replace(scene, caption=""), options, tick)
        except Interrupted:
            draft = Draft(interrupted=True)
        answer = self._explain(replace(scene, caption=""), draft, options)
        return replace(answer, seconds=time.perf_counter() - started)

    def _set(self, options: InterrogateOptions) -> WordSet:
        """Return the word lists that are asked for; raises BadOption."""
        return set_of(options, self._sets, self._categories)

    def _word_rules(self, options: InterrogateOptions) -> WordRules:
        """Return what must not come out, and what comes out in place of what else."""
        chosen = self._set(options)
        key = (options.leave_out, options.replacements, chosen.without, chosen.leave_out)
        if key not in self._rules:
            names: set[str] = set()
            lines: set[str] = set()
            for name in chosen.without:
                whole, _, part = name.partition("/")
                is_people = role_of(name) == "artists"
                said = names if is_people else lines
                said.update(self._category(whole).lines_of(part))
                ours = load_categories().get(whole) if self._category(whole).own else None
                if is_people and ours is not None and (not part or part in ours.parts):
                    said.update(ours.lines_of(part))  # a list of one's own lets nobody in
            self._rules.clear()
            self._rules[key] = WordRules(
                options.leave_out + chosen.leave_out, options.replacements, frozenset(lines),
                frozenset(names), self._ordinary_words() if names else frozenset(),
            )
        return self._rules[key]

    def _ordinary_words(self) -> frozenset[str]:
        """Return the words that our lists say of other things than people."""
        others = [
            self._category(name) for name in catalog.CATEGORIES
            if name in self._categories and name != "artists"
        ]
        return frozenset(
            word for category in others if not category.own for line in category.lines
            for word in line.split() if word.islower()
        )

    def _category(self, name: str) -> Category:
        """Return a list that is used from now on."""
        self._used_lists.add(name)
        return self._categories[name]

    def _vocabulary(self, options: InterrogateOptions, tick: Tick) -> Vocabulary:
        """Return the tables that a mode needs; the latest that were made are kept."""
        if options.mode == "caption":
            return Vocabulary()
        chosen, rules = self._set(options), self._word_rules(options)
        kind = options.mode if options.mode in ("style", "negative") else ""
        key = (kind, chosen.choices, rules)
        if key not in self._vocabularies:
            make = self._negative_vocabulary if kind == "negative" else self._positive_vocabulary
            made = make(chosen, rules, tick, style=kind == "style")
            while len(self._vocabularies) >= _KEPT_VOCABULARIES:
                del self._vocabularies[next(iter(self._vocabularies))]
            self._vocabularies[key] = made
        return self._vocabularies[key]

    def _positive_vocabulary(
        self, chosen: WordSet, rules: WordRules, tick: Tick, *, style: bool
    ) -> Vocabulary:
        """Return the stages of a set, and its tables by what their phrases are."""
        choices = [one for one in chosen.choices if one.role != catalog.NEGATIVE_CATEGORY]
        by_role: dict[str, list[Table]] = {}
        stages: list[tuple[list[Table], int | None]] = []
        for choice in choices:
            table = self._choose(choice, rules, tick, style=style)
            by_role.setdefault(choice.role, []).append(table)
            if choice.count is None and stages and stages[-1][1] is None:
                stages[-1][0].append(table)
            else:
                stages.append(([table], choice.count))
        return Vocabulary(
            tuple(Stage(merge(tables), count) for tables, count in stages),
            {role: merge(tables) for role, tables in by_role.items()},
        )

    def _negative_vocabulary(
        self, chosen: WordSet, rules: WordRules, tick: Tick, *, style: bool  # noqa: ARG002 - as above
    ) -> Vocabulary:
        """Return the flavors of a set, and its negative list, or ours where it has none."""
        flavors = [one for one in chosen.choices if one.role == "flavors"]
        negatives = [one for one in chosen.choices if one.role == catalog.NEGATIVE_CATEGORY]
        if not negatives and catalog.NEGATIVE_CATEGORY in self._categories:
            negatives = [Choice(catalog.NEGATIVE_CATEGORY)]
        tables = [self._choose(choice, rules, tick) for choice in flavors]
        away = [self._choose(choice, rules, tick) for choice in negatives]
        return Vocabulary(
            tables={"flavors": merge(tables)} if tables else {},
            negative=merge(away) if away else None,
        )

    def _choose(
        self, choice: Choice, rules: WordRules, tick: Tick, *, style: bool = False
    ) -> Table:
        """Return the table of a choice, in the words that the rules allow."""
        name, _, part = choice.list.partition("/")
        category, table = self._category(name), self._table(name, tick)
        if part:
            table = table.where(category.parts[part].__contains__)
        if style:  # says how a picture looks, and not what it shows
            table = table.where(lambda phrase: phrase not in category.subjects)
        if not rules:
            return table
        worded = {}
        for done, phrase in enumerate(table.phrases):
            if done % _PHRASES_A_TICK == 0:
                tick(f"Wording {name}", done, len(table.phrases))
            worded[phrase] = rules.phrase(phrase)
        changed = [worded[phrase] for phrase in table.phrases if worded[phrase] not in ("", phrase)]
        table = table.where(lambda phrase: worded[phrase] == phrase)
        if changed:
            # The file of the list's vectors must not grow by whatever anybody asks for.
            new = self._encoded(self._unkept, name, tuple(dict.fromkeys(changed)), tick)
            table = merge([table, new])
        return table

    def _table(self, name: str, tick: Tick) -> Table:
        if name not in self._tables:
            phrases = self._category(name).phrases
            self._tables[name] = self._encoded(self._store, name, phrases, tick)
        return self._tables[name]

    def _encoded(
        self, store: PhraseStore, name: str, phrases: tuple[str, ...], tick: Tick
    ) -> Table:
        vectors = tuple(
            store.vectors(encoder, name, phrases, tick) for encoder in self.resident_encoders()
        )
        return Table(phrases, (role_of(name),) * len(phrases), vectors)

    def _explain(self, scene: Scene, draft: Draft, options: InterrogateOptions) -> Prompt:
        """Say how near the text is, and if asked each of its phrases, alone and by being there."""
        scorer, text = scene.scorer, draft.text
        similarity = None
        parts = tuple(Part(piece.phrase, piece.category, None, None) for piece in draft.pieces)
        if text and options.weigh and not draft.interrupted:
            try:
                similarity, parts = self._weigh(scorer, draft, away=options.mode == "negative")
            except Interrupted:
                draft = replace(draft, interrupted=True)
        if text and similarity is None:
            similarity = float(replace(scorer, tick=no_tick).texts([text])[0])
        return Prompt(
            text=text,
            mode=options.mode,
            caption=scene.caption,
            tokens=scorer.count_tokens([text])[0] if text else 0,
            similarity=similarity,
            seconds=0.0,
            parts=parts,
            demo=self.demo,
            interrupted=draft.interrupted,
        )

    @staticmethod
    def _weigh(scorer: Scorer, draft: Draft, *, away: bool) -> tuple[float, tuple[Part, ...]]:
        """Return the text's score, and its parts with their scores and gains."""
        count = len(draft.pieces)
        others = [draft.without(index).text for index in range(count)]
        alone = [piece.phrase for piece in draft.pieces]
        scores = scorer.texts([draft.text, *others, *alone]).tolist()
        sign = -1 if away else 1
        parts = tuple(
            Part(piece.phrase, piece.category, single, sign * (scores[0] - other))
            for piece, other, single in zip(
                draft.pieces, scores[1 : count + 1], scores[count + 1 :], strict=True
            )
        )
        return scores[0], parts


def _required(pixels: Tensor | None) -> Tensor:
    if pixels is None:
        raise AssertionError("the picture was prepared for its caption")
    return pixels


def _loaded(network: Network, kind: str) -> Loaded:
    device = str(next(network.module.parameters()).device)
    return Loaded(network.name, kind, device, size_bytes(network.module))
