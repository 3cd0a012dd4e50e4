"""Measure whether our word lists are better than the classic ones of clip-interrogator 0.6.0.

Each set of word lists is asked about the same pictures with the same captions, mode and pool. The
table says what its lists hold, how often that is true of a picture, how near its prompts come to
the pictures, by the backbone that guides the search and by another that judges, and what repeats.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import ROOT, cores, rounded, say, versions

sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import draw_pictures

from clip_interrogator_ext import InterrogateOptions, ModelOptions, Service, StandaloneHost
from clip_interrogator_ext.catalog import DEFAULT_CAPTIONER, DEMO, NO_CAPTIONER
from clip_interrogator_ext.errors import BadImage, InterrogatorError
from clip_interrogator_ext.images import list_folder, open_image

if TYPE_CHECKING:
    from draw_pictures import Scene
    from PIL import Image

SEED = 50_000  # of no training and no evaluation
OURS, CLASSIC = "all", "classic"
MODES = ("best", "turbo", "fast", "classic")
MOST_TOKENS = 20  # of a phrase; a prompt has 75
SMALL_PICTURES, SMALL_POOL = 3, 32
# Longer than three letters, but no content.
FUNCTION_WORDS = frozenset({
    "about", "behind", "between", "from", "into", "over", "than", "that", "their", "these", "this",
    "through", "under", "upon", "very", "with", "without",
})


# --- Words ---------------------------------------------------------------------------------


def fold(text: str) -> str:
    """Return a text without case, accents, doubled spaces and a leading article."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(sign for sign in apart if not unicodedata.combining(sign))
    return re.sub(r"^(an?|the) (?=\S)", "", " ".join(plain.split()))


def words(text: str) -> list[str]:
    """Return the words of a text, folded; one with a hyphen or an apostrophe stays whole."""
    return re.findall(r"\w+(?:['\u2019-]\w+)*", fold(text))


def repeated_words(text: str) -> int:
    """Count the content words that stood in the text before."""
    content = [word for word in words(text) if len(word) > 3 and word not in FUNCTION_WORDS]
    return len(content) - len(set(content))


def wordings(fact: str) -> set[str]:
    """Return how a fact may be said: "at sunset" also as "sunset"; all folded."""
    return {fold(fact), fold(re.sub(r"^(at|in|on) ", "", fact))}


class Haystack:
    """Phrases, folded, in which facts are looked for."""

    def __init__(self, phrases: Iterable[str]) -> None:
        self._phrases = {fold(phrase) for phrase in phrases}
        self._text = "\n".join(f" {' '.join(words(phrase))} " for phrase in self._phrases)

    def has(self, fact: str) -> bool:
        """Say whether a fact is a phrase of its own."""
        return not self._phrases.isdisjoint(wordings(fact))

    def holds(self, fact: str) -> bool:
        """Say whether a fact is a phrase or, word by word, a part of one."""
        return any(f" {' '.join(words(wording))} " in self._text for wording in wordings(fact))


def listed_facts(scene: Scene) -> tuple[str, ...]:
    """Return what is true of a picture and could stand in a word list."""
    return (scene.medium, scene.subject, scene.light, *scene.flavors)


def coverage(haystack: Haystack, scenes: Sequence[Scene]) -> tuple[float, float]:
    """Return the mean share of a picture's facts that are a phrase, and that are in a phrase."""
    facts = [listed_facts(scene) for scene in scenes]
    return (
        statistics.mean(statistics.mean(map(haystack.has, one)) for one in facts),
        statistics.mean(statistics.mean(map(haystack.holds, one)) for one in facts),
    )


def is_true(phrase: str, scene: Scene) -> bool:
    """Say whether a phrase is one of a picture's facts, and nothing else."""
    return fold(phrase) in set().union(*map(wordings, draw_pictures.facts(scene)))


def names_a_fact(phrase: str, scene: Scene) -> bool:
    """Say whether a phrase holds a fact; colors and counts by themselves are too common."""
    told = (*listed_facts(scene), scene.place, draw_pictures.SUBJECTS[scene.subject])
    haystack = Haystack([phrase])
    return is_true(phrase, scene) or any(map(haystack.holds, told))


# --- Vocabularies --------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """The phrases of a set, each once for every list that has it; so many are flavors."""

    name: str
    phrases: tuple[str, ...]
    flavors: int


def vocabularies(service: Service, names: Sequence[str]) -> list[Vocabulary]:
    """Return the vocabularies of sets; end with a sentence where one can't be had."""
    sets, categories = service.word_sets(), service.categories()
    found = []
    for name in names:
        if name not in sets:
            sys.exit(f"There is no set {name!r}; there are {', '.join(sets)}.")
        missing = sets[name].missing(categories)
        if missing:
            hint = "Put them into the folder of your own lists."
            if any(one.startswith("classic:") for one in missing):
                hint = "Install them: pip install --no-deps clip-interrogator==0.6.0"
            sys.exit(f"The set {name} lacks lists: {', '.join(missing)}. {hint}")
        found.append(vocabulary_of(sets[name], categories, service.positive_categories()))
    return found


def vocabulary_of(
    word_set: Any, categories: Mapping[str, Any], positive: Sequence[str]
) -> Vocabulary:
    """Return all that a set may say: its lists and parts, less what it leaves out."""

    def listed(name: str) -> list[tuple[str, str]]:
        whole, _, part = (name, "", "") if name in categories else name.partition("/")
        category = categories[whole]
        phrases = sorted(category.parts[part]) if part else category.phrases
        return [(whole, phrase) for phrase in phrases]

    names = [choice.list for choice in word_set.choices] or positive
    held = dict.fromkeys(pair for name in names for pair in listed(name))
    known = [name for name in word_set.without if {name, name.partition("/")[0]} & set(categories)]
    never = {phrase for name in known for _, phrase in listed(name)}
    left_out = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.I) for word in word_set.leave_out]
    kept = [
        (whole, phrase) for whole, phrase in held
        if phrase not in never and not any(pattern.search(phrase) for pattern in left_out)
    ]
    return Vocabulary(
        word_set.name, tuple(phrase for _, phrase in kept),
        sum(whole.rpartition(":")[2] == "flavors" for whole, _ in kept),
    )


# --- Questions -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A picture, or its file; and what is on it, where it was drawn."""

    name: str
    image: Image.Image | Path
    scene: Scene | None = None


@dataclass(frozen=True)
class Answer:
    """The prompt of one picture: its phrases, how near it is by guide and judge, its seconds."""

    text: str
    phrases: tuple[str, ...]
    guide: float
    seconds: float
    judge: float | None = None


def drawn_pictures(number: int) -> list[Picture]:
    """Draw pictures that no demo model was trained on."""
    return [
        Picture(f"{index:04}", draw_pictures.draw(scene, draw_pictures.SAMPLE_SIZE), scene)
        for index, scene in enumerate(draw_pictures.random_scenes(SEED, number))
    ]


def pictures_of(folder: Path) -> list[Picture]:
    """Return the pictures of a folder; those that can't be read are left out, and said."""
    found = []
    for path in list_folder(folder):
        try:
            open_image(path)
        except BadImage as error:
            say(f"{error} It is left out.")
        else:
            found.append(Picture(path.name, path))
    if not found:
        sys.exit(f"There is no picture in {folder} that can be read.")
    return found


def say_captions(
    service: Service, pictures: Sequence[Picture], models: ModelOptions
) -> list[Answer]:
    """Return each picture's caption, which all vocabularies then get; drawn ones know theirs."""
    found = []
    for picture in pictures:
        known = models.captioner == NO_CAPTIONER and picture.scene is not None
        options = InterrogateOptions(
            mode="caption", weigh=False,
            caption=draw_pictures.caption(picture.scene) if known else None,
        )
        prompt = service.interrogate(picture.image, options, models)
        found.append(Answer(prompt.caption, (), prompt.similarity or 0.0, prompt.seconds))
    return found


def ask(
    service: Service, pictures: Sequence[Picture], captions: Sequence[Answer],
    options: InterrogateOptions, models: ModelOptions,
) -> list[Answer]:
    """Return the prompts that a vocabulary comes to."""
    say(f"{options.vocabulary}: reading the vectors of its phrases, or computing them")
    # Once, so that they don't count among the seconds of the first prompt.
    once = replace(options, mode="fast", caption=captions[0].text)
    service.interrogate(pictures[0].image, once, models)
    found = []
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True), 1):
        asked = replace(options, caption=caption.text)
        prompt = service.interrogate(picture.image, asked, models)
        phrases = tuple(part.phrase for part in prompt.parts)
        found.append(Answer(prompt.text, phrases, prompt.similarity or 0.0, prompt.seconds))
        say(f"{options.vocabulary}, {number} of {len(pictures)}: {prompt.text}")
    return found


def let_judge(
    service: Service, pictures: Sequence[Picture], answers: Sequence[Sequence[Answer]], judge: str
) -> list[list[Answer]]:
    """Return the answers with how near another backbone finds them; a column a vocabulary."""
    models = ModelOptions(backbones=(judge,), captioner=NO_CAPTIONER)
    judged = []
    for picture, row in zip(pictures, zip(*answers, strict=True), strict=True):
        found = service.similarity(picture.image, [answer.text for answer in row], models)
        judged.append([replace(a, judge=score) for a, score in zip(row, found, strict=True)])
    return [list(column) for column in zip(*judged, strict=True)]


def random_backbone(architecture: str, seed: int, folder: Path) -> str:
    """Save a backbone of random weights in open_clip's format, and return its name: the folder."""
    import torch
    from safetensors.torch import save_file

    from clip_interrogator_ext.models import open_clip

    config = open_clip.plan_architecture(architecture).config
    torch.manual_seed(seed)
    model = open_clip.build(config)
    folder.mkdir(parents=True)
    settings = json.dumps({"model_cfg": config, "preprocess_cfg": {}})
    (folder / "open_clip_config.json").write_text(settings, encoding="utf-8")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return str(folder)


# --- Figures -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of each vocabulary, and what it means."""

    work: str
    form: str
    values: Mapping[str, float]
    meaning: str
    errors: Mapping[str, float | None] = field(default_factory=dict)

    def cell(self, name: str) -> str:
        """Word one vocabulary's figure."""
        if name not in self.values:
            return "-"
        error = self.errors.get(name)
        return f"{self.values[name]:{self.form}}" + ("" if error is None else f" ± {error:.4f}")


def size_rows(found: Sequence[Vocabulary], service: Service) -> list[Row]:
    """Count what the lists hold."""

    def counted(count: Callable[[Vocabulary], int]) -> dict[str, float]:
        return {one.name: count(one) for one in found}

    def is_long(phrase: str) -> bool:
        # A token is a byte at least.
        return (
            len(phrase.encode()) > MOST_TOKENS and service.count_tokens(phrase)[0] > MOST_TOKENS
        )

    return [
        Row("phrases", ",.0f", counted(lambda one: len(one.phrases)),
            "what the set may say, after its templates such as \"by {}\""),
        Row("of which flavors", ",.0f", counted(lambda one: one.flavors),
            "those of the lists of that name"),
        Row("repeats", ",.0f",
            counted(lambda one: len(one.phrases) - len(set(map(fold, one.phrases)))),
            "phrases that stand there already but for case, accents and a leading article"),
        Row(f"phrases of more than {MOST_TOKENS} tokens", ",.0f",
            counted(lambda one: sum(map(is_long, one.phrases))),
            "each takes more than a quarter of a prompt; by CLIP's own tokenizer"),
    ]


def coverage_rows(found: Sequence[Vocabulary], scenes: Sequence[Scene]) -> list[Row]:
    """Say how often the truth stands in the lists."""
    shares = {one.name: coverage(Haystack(one.phrases), scenes) for one in found}
    return [
        Row("facts that are a phrase", ".3f", {name: exact for name, (exact, _) in shares.items()},
            "the share of a picture's medium, subject, light and flavors that is in the lists"),
        Row("facts that are in a phrase", ".3f", {name: part for name, (_, part) in shares.items()},
            "the same, where a part of a longer phrase counts too"),
    ]


def paired(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of what ours have more, picture by picture, and its standard error."""
    more = [one - other for one, other in zip(ours, theirs, strict=True)]
    error = statistics.stdev(more) / math.sqrt(len(more)) if len(more) > 1 else None
    return statistics.mean(more), error


def similarity_rows(
    who: str, scores: Mapping[str, Sequence[float]], caption: Sequence[float]
) -> list[Row]:
    """Say how near prompts come to their pictures, and how far the first vocabulary is ahead."""
    first = next(iter(scores))
    ahead = {name: paired(scores[first], one) for name, one in scores.items() if name != first}
    return [
        Row(f"similarity by the {who}", ".4f",
            {name: statistics.mean(one) for name, one in scores.items()},
            f"the mean cosine of prompt and picture; {statistics.mean(caption):.4f} for the "
            "caption alone"),
        Row(f"{first} is ahead, by the {who}", "+.4f",
            {name: mean for name, (mean, _) in ahead.items()},
            "the mean of the differences, picture by picture, and its standard error",
            {name: error for name, (_, error) in ahead.items()}),
    ]


def answer_rows(
    answers: Mapping[str, Sequence[Answer]], captions: Sequence[Answer],
    scenes: Sequence[Scene],
) -> list[Row]:
    """Say what prompts came to: similarities, repeats, seconds, and truth where it is known."""

    def mean(of: Callable[[Answer], float]) -> dict[str, float]:
        return {name: statistics.mean(map(of, column)) for name, column in answers.items()}

    def of_scenes(says: Callable[[str, Scene], bool]) -> dict[str, float]:
        return {
            name: statistics.mean(
                sum(says(phrase, scene) for phrase in answer.phrases)
                for answer, scene in zip(column, scenes, strict=True)
            )
            for name, column in answers.items()
        }

    rows = similarity_rows(
        "guide", {name: [one.guide for one in column] for name, column in answers.items()},
        [one.guide for one in captions],
    )
    if all(one.judge is not None for one in captions):
        rows += similarity_rows(
            "judge",
            {name: [one.judge or 0.0 for one in column] for name, column in answers.items()},
            [one.judge or 0.0 for one in captions],
        )
    rows += [
        Row("prompts that repeat a word", ".3f", mean(lambda one: repeated_words(one.text) > 0),
            "the share in which a content word of more than three letters comes twice"),
        Row("repeated words in a prompt", ".2f", mean(lambda one: repeated_words(one.text)),
            "how many such words stood there before, in the mean"),
        Row("seconds for a prompt", ".3g", mean(lambda one: one.seconds),
            "with caption and vectors of the lists ready"),
        Row("phrases in a prompt", ".2f", mean(lambda one: len(one.phrases)),
            "after the caption, in the mean"),
    ]
    if scenes:
        rows += [
            Row("of these, a fact of the picture", ".2f", of_scenes(is_true),
                "word for word, with or without article and preposition"),
            Row("of these, with a fact in them", ".2f", of_scenes(names_a_fact),
                "the same, where a part of a longer phrase counts too; what else it says is not "
                "looked at"),
        ]
    return rows


# --- The table -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """All that was measured, and with what."""

    versions: Mapping[str, str]
    device: str
    cores: int
    guide: str
    judge: str | None
    captioner: str
    mode: str
    pool: int
    pictures: int
    drawn: bool
    warnings: Sequence[str]
    rows: Sequence[Row]
    prompts: Sequence[Mapping[str, str]]  # of each picture: its name, caption, and prompts by set


def table(report: Report, names: Sequence[str]) -> str:
    """Set out a report to be read."""
    kind = "drawn pictures" if report.drawn else "pictures of a folder"
    listed = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    cells = [[row.cell(name) for name in names] for row in report.rows]
    label = max(len(row.work) for row in report.rows)
    widths = [
        2 + max(len(name), *(len(row[column]) for row in cells))
        for column, name in enumerate(names)
    ]

    def line(begin: str, row: Sequence[str]) -> str:
        ends = "".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        return f"{begin:{label}}{ends}"

    return "\n".join([
        f"{report.pictures} {kind}, mode {report.mode}, pool {report.pool}",
        f"On {report.device} ({report.cores} cores)",
        f"Guide: {report.guide}; judge: {report.judge or 'none'}; captions: {report.captioner}",
        listed,
        "",
        *report.warnings,
        "",
        line("", names),
        *(line(row.work, row_cells) for row, row_cells in zip(report.rows, cells, strict=True)),
        "",
        *(f"{row.work}: {row.meaning}." for row in report.rows),
    ])


def warnings(*, random: bool, demo: bool, drawn: bool, judged: bool) -> list[str]:
    """Say, in sentences, what the figures can't tell."""
    said = []
    if random:
        said.append(
            "The weights are random: similarities, and which phrases were found, say nothing "
            "about quality. Sizes, repeats in the lists and seconds hold."
        )
    if demo:
        said.append(
            "The demo models were trained with phrases of our lists: they favor ours, and say "
            "nothing about real pictures."
        )
    if drawn:
        said.append(
            "Pictures are drawn, and their facts are worded as our lists have them: that favors "
            "ours."
        )
    if not judged:
        said.append(
            "Nobody judges but the backbone that guided the search: more phrases to choose from "
            "raise its score, whether they are true or not."
        )
    return said


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[Report, list[str]]:
    """Ask all vocabularies about all pictures; return the report and the sets' names."""
    small, random = arguments.small, arguments.random
    service = Service(
        StandaloneHost(arguments.device), lists_dir=arguments.lists_dir or folder / "no lists",
        cache_dir=folder / "cache" if random else None,  # nobody wants these vectors again
    )
    names = list(dict.fromkeys([OURS, CLASSIC, *arguments.vocabulary]))
    found = vocabularies(service, names)
    guide, judge = arguments.clip, arguments.judge
    shown = [guide, judge]
    if random:
        guide, judge = (random_backbone(random, seed, folder / str(seed)) for seed in (0, 1))
        shown = [f"{random}, random weights, seed {seed}" for seed in (0, 1)]
    captioner = arguments.captioner or (DEMO if random or guide == DEMO else DEFAULT_CAPTIONER)
    if arguments.folder:
        pictures = pictures_of(arguments.folder)[: SMALL_PICTURES if small else None]
    else:
        pictures = drawn_pictures(SMALL_PICTURES if small else arguments.pictures)
    models = ModelOptions(backbones=(guide,), captioner=captioner)
    pool = SMALL_POOL if small else arguments.pool
    captions = say_captions(service, pictures, models)
    columns = [captions]
    for name in names:
        options = InterrogateOptions(
            mode=arguments.mode, vocabulary=name, pool_size=pool, weigh=False
        )
        columns.append(ask(service, pictures, captions, options, models))
    device = service.status().loaded[0].device
    if judge:
        columns = let_judge(service, pictures, columns, judge)
    captions, *prompts = columns
    answers = dict(zip(names, prompts, strict=True))
    scenes = [picture.scene for picture in pictures if picture.scene is not None]
    rows = size_rows(found, service)
    rows += coverage_rows(found, scenes) if scenes else []
    rows += answer_rows(answers, captions, scenes)
    report = Report(
        versions=versions(), device=device, cores=cores(), guide=shown[0], judge=shown[1],
        captioner=captioner, mode=arguments.mode, pool=pool, pictures=len(pictures),
        drawn=bool(scenes), rows=rows,
        warnings=warnings(
            random=bool(random), demo=not random and DEMO in (guide, judge),
            drawn=bool(scenes), judged=bool(judge),
        ),
        prompts=[
            {"picture": picture.name, "caption": captions[index].text}
            | {name: column[index].text for name, column in answers.items()}
            for index, picture in enumerate(pictures)
        ],
    )
    return report, names


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    pictures = parser.add_mutually_exclusive_group()
    pictures.add_argument("--folder", type=Path, metavar="PICTURES", help="real pictures")
    pictures.add_argument(
        "--pictures", type=int, default=50, metavar="N", help="how many are drawn (50)"
    )
    guides = parser.add_mutually_exclusive_group()
    guides.add_argument(
        "--clip", default=DEMO, metavar="NAME", help="the backbone that guides the search (demo)"
    )
    guides.add_argument(
        "--random", metavar="ARCHITECTURE",
        help="guide and judge of random weights, such as ViT-B-32: for times, not for quality",
    )
    parser.add_argument(
        "--judge", metavar="NAME", help="another backbone, which judges the prompts (none)"
    )
    parser.add_argument(
        "--captioner", metavar="NAME",
        help=f"who says the captions ({DEMO} with the demo or random backbones, otherwise "
        f"{DEFAULT_CAPTIONER}); none: what was drawn",
    )
    parser.add_argument("--mode", choices=MODES, default="best")
    parser.add_argument("--pool", type=int, default=2048, metavar="N", help="its size (2048)")
    parser.add_argument(
        "--vocabulary", action="append", default=[], metavar="SET",
        help=f"another set beside {OURS} and {CLASSIC}; may be given again",
    )
    parser.add_argument(
        "--lists-dir", metavar="FOLDER",
        help=f"your own lists and sets; the lists count in {OURS} too",
    )
    parser.add_argument("--device", help="where networks run: cpu, cuda, ... (the best there is)")
    parser.add_argument(
        "--small", action="store_true",
        help=f"{SMALL_PICTURES} pictures and a pool of {SMALL_POOL}, to see that it runs",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there as JSON")
    arguments = parser.parse_args()
    if min(arguments.pictures, arguments.pool) < 1:
        parser.error("--pictures and --pool must be at least 1")
    if arguments.random and arguments.judge:
        parser.error("--random brings its own judge")
    if arguments.judge == arguments.clip:
        parser.error("--judge must be another backbone than --clip")
    if arguments.folder and arguments.captioner == NO_CAPTIONER:
        parser.error("pictures of a folder need a captioner")
    return arguments


def main() -> None:
    """Measure and print."""
    arguments = read_arguments()
    with tempfile.TemporaryDirectory(prefix="clip-interrogator-ext-bench-") as folder:
        try:
            report, names = measure(arguments, Path(folder))
        except InterrogatorError as error:
            sys.exit(str(error))
    print(table(report, names))
    if arguments.json:
        line = json.dumps(json.loads(json.dumps(asdict(report)), parse_float=rounded))
        arguments.json.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
