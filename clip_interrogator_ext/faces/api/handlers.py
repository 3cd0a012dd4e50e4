"""The handlers, one for each route, around a service."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import Path

from clip_interrogator_ext import catalog
from clip_interrogator_ext.batch.jobs import jobs_of
from clip_interrogator_ext.batch.options import BatchOptions  # noqa: TC001 - FastAPI looks it up
from clip_interrogator_ext.faces.api.answers import (
    analyze_answer,
    as_json_holds,
    batch_answer,
    failures_of,
    lists_answer,
    prompt_answer,
    vocabularies_answer,
)
from clip_interrogator_ext.faces.api.messages import (
    AnalyzeAnswer,
    BatchAnswer,
    CatalogAnswer,
    ErrorAnswer,
    InterruptAnswer,
    InterruptRequest,
    OneBatchAnswer,
    PromptAnswer,
    SimilarityAnswer,
    StatusAnswer,
    StopBatchAnswer,
    UnloadAnswer,
    VocabulariesAnswer,
)
from clip_interrogator_ext.faces.api.questions import (
    ANALYZE,
    BATCH,
    NOTHING,
    PROMPT,
    SIMILARITY,
    Question,
)
from clip_interrogator_ext.faces.api.refusals import Refusal
from clip_interrogator_ext.faces.api.route import Route
from clip_interrogator_ext.faces.api.turnstile import WAITING_LIMIT, turnstile_of

if TYPE_CHECKING:
    from fastapi import Request

    from clip_interrogator_ext.batch.results import BatchState
    from clip_interrogator_ext.service import Service

ID: Any = Path(alias="id", description="What the batch is called.")


class Api:
    """The handlers, around a service."""

    def __init__(
        self,
        service: Service,
        allowed: Callable[[Request], bool],
        setting: Callable[[str], Any],
        is_foreign: Callable[[Mapping[str, str]], bool],
    ) -> None:
        self.service = service
        self.allowed = allowed
        self.setting = setting
        self.is_foreign = is_foreign
        self.turnstile = turnstile_of(service)

    def limit(self) -> int:
        """Return how many may be inside: those who wait, and whoever computes."""
        holder = self.turnstile.holder
        # While the WebUI generates a picture, whoever has the turn waits as well. What is loaded is
        # not asked for: adding up networks' sizes would hold the event loop up.
        waiting = {run.task for run in self.service.runs() if not run.running}
        return WAITING_LIMIT + (holder is None or holder.task not in waiting)

    def routes(self) -> list[Route]:
        """Return all routes."""
        get, post = ["GET"], ["POST"]
        return [
            self._route("models", self.models, get, list[str], "CLIP backbones by name"),
            self._route("captioners", self.captioners, get, list[str], "Captioners by name"),
            self._route("catalog", self.choices, get, CatalogAnswer, "All that can be chosen"),
            self._route(
                "vocabularies", self.vocabularies, get, VocabulariesAnswer,
                "Sets of word lists, and the lists",
            ),
            self._route("status", self.status, get, StatusAnswer, "What runs and what is loaded"),
            self._route("prompt", self.prompt, post, PromptAnswer, "The prompt of a picture", True),
            self._route(
                "analyze", self.analyze, post, AnalyzeAnswer, "The phrases nearest to a picture",
                True,
            ),
            self._route(
                "similarity", self.similarity, post, SimilarityAnswer,
                "How near texts are to a picture", True,
            ),
            self._route("unload", self.unload, post, UnloadAnswer, "Give the memory back", True),
            self._route("interrupt", self.interrupt, post, InterruptAnswer, "Stop a run"),
            self._route(
                "batch", self.batches, get, list[BatchAnswer], "All batches", folders=True
            ),
            self._route(
                "batch", self.start_batch, post, BatchAnswer, "Interrogate a folder of pictures",
                folders=True, status_code=202,
            ),
            self._route(
                "batch/{id}", self.batch, get, OneBatchAnswer, "How far a batch is", folders=True
            ),
            self._route(
                "batch/{id}", self.stop_batch, ["DELETE"], StopBatchAnswer, "Stop a batch",
                folders=True,
            ),
        ]

    def _route(
        self,
        name: str,
        call: Callable[..., Any],
        methods: list[str],
        answer: Any,
        summary: str,
        waits: bool = False,
        folders: bool = False,
        status_code: int = 200,
    ) -> Route:
        codes = {401, 422, 500}
        if "POST" in methods:
            codes |= {413}
        if waits:
            codes |= {403, 404, 409, 503}
        if folders:
            codes |= {403, 404, 503}
        return Route(
            self, f"/interrogator/{name}", call, waits=waits, folders=folders, methods=methods,
            summary=summary, response_model=answer, status_code=status_code,
            name=f"interrogator_{name.partition('/')[0]}",
            responses={code: {"model": ErrorAnswer} for code in sorted(codes)},
        )

    def models(self) -> Any:
        """Every CLIP backbone that can be named, and the bundled demo model."""
        return [*self.service.known_backbones(), catalog.DEMO]

    def captioners(self) -> Any:
        """Every captioner that can be named, the bundled demo model, and none."""
        return [*catalog.CAPTIONERS, catalog.DEMO, catalog.NO_CAPTIONER]

    def choices(self) -> Any:
        """Recommended models with size, use and place; modes, generators, word lists."""
        categories = self.service.categories()
        return as_json_holds({
            "backbones": [self._model(row, name) for name, row in catalog.BACKBONES.items()],
            "captioners": [self._model(row, name) for name, row in catalog.CAPTIONERS.items()],
            "modes": catalog.MODES,
            "generators": {name: list(read) for name, read in catalog.GENERATORS.items()},
            "categories": {name: len(category.phrases) for name, category in categories.items()},
            "vocabularies": vocabularies_answer(self.service),
        })

    def _model(self, row: catalog.Backbone | catalog.CaptionerRow, name: str) -> dict[str, Any]:
        place = self.service.place(name)
        shown = self.service.paths_open
        return {
            "name": name,
            "suits": getattr(row, "suits", None),
            "why": row.why,
            "parameters": row.parameters * 1_000_000,
            "download_bytes": row.download_bytes,
            "place": place and {
                "path": str(place.path) if shown else None, "size_bytes": place.size_bytes,
            },
        }

    def vocabularies(self) -> Any:
        """The sets that can be chosen, with what they hold, and every list with its parts."""
        return as_json_holds({
            "sets": vocabularies_answer(self.service), "lists": lists_answer(self.service),
        })

    def status(self) -> Any:
        """Runs, those that wait too, and networks in memory; never waits."""
        waiting = self.turnstile.waiting()
        status = self.service.status().as_dict()
        in_line = [place.seen() for place in waiting if place.task]
        status["runs"] = [*status["runs"], *in_line]
        for network in status["loaded"]:
            network["name"] = self.service.without_paths(network["name"])
        return as_json_holds({**status, "waiting": len(waiting)})

    def prompt(self, question: Question = PROMPT) -> Any:
        """Turn a picture into a prompt for Stable Diffusion."""
        question.place.require_not_stopped()
        answer = self.service.interrogate(
            question.image, question.options, question.models, question.task
        )
        return as_json_holds(prompt_answer(answer, escape=question.escape))

    def analyze(self, question: Question = ANALYZE) -> Any:
        """Rank each category's phrases by how near they are to a picture."""
        question.place.require_not_stopped()
        answer = self.service.analyze(
            question.image, question.models, question.top, question.task, question.categories
        )
        return as_json_holds(analyze_answer(answer, demo=question.demo))

    def similarity(self, question: Question = SIMILARITY) -> Any:
        """Compare texts with a picture."""
        question.place.require_not_stopped()
        started = time.perf_counter()
        scores = self.service.similarity(
            question.image, question.texts, question.models, question.task
        )
        return as_json_holds({
            "similarities": [
                {"text": text, "similarity": score}
                for text, score in zip(question.texts, scores, strict=True)
            ],
            "seconds": time.perf_counter() - started,
            "demo": question.demo,
        })

    def unload(self, _place: Any = NOTHING) -> Any:
        """Let go of all networks, after the runs that came before."""
        held = self.service.status().size_bytes
        self.service.unload()
        return {"freed_bytes": held}

    def interrupt(self, asked: InterruptRequest | None = None) -> Any:
        """Stop a run or a batch, or all of them, those that wait too."""
        task = None if asked is None else asked.task
        batch = jobs_of(self.service).stop(task)
        waiting, running = self.turnstile.stop(task), self.service.interrupt(task)
        return {"interrupted": batch or waiting or running}

    def batches(self) -> Any:
        """All batches that wait or run, and the latest that have ended, the oldest first."""
        return as_json_holds([batch_answer(state) for state in jobs_of(self.service).all()])

    def start_batch(self, options: BatchOptions = BATCH) -> Any:
        """Put a batch into the line and answer at once; it goes on whoever listens."""
        return as_json_holds(batch_answer(jobs_of(self.service).add(options)))

    def batch(self, name: str = ID) -> Any:
        """How far a batch is, and what became of it."""
        state = self._state(name)
        return as_json_holds({**batch_answer(state), "failures": failures_of(state)})

    def stop_batch(self, name: str = ID) -> Any:
        """Stop a batch at once; what is finished is kept, and the same batch goes on from there."""
        self._state(name)
        interrupted = jobs_of(self.service).stop(name)
        return as_json_holds({**batch_answer(self._state(name)), "interrupted": interrupted})

    def _state(self, name: str) -> BatchState:
        state = jobs_of(self.service).get(name)
        if state is None:
            raise Refusal(
                404, "UnknownBatch",
                f"No batch is called {name!r}: it was never asked for, or has been forgotten.",
            )
        return state
