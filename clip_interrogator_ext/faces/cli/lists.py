"""The command that tells of word lists and their sets, and makes lists ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clip_interrogator_ext import catalog
from clip_interrogator_ext.errors import BadOption, Interrupted
from clip_interrogator_ext.faces.cli.shared import (
    DONE,
    STOPPED,
    add_categories,
    add_engine,
    announce_demo,
    categories_of,
    models_of,
    print_line,
    say,
    service_of,
)

if TYPE_CHECKING:
    import argparse

    from clip_interrogator_ext.service import Service


_MOST_TOLD = 3  # problems of a list


def add_command(commands: Any) -> None:
    """Add the command `lists` to those of the parser."""
    parser = commands.add_parser(
        "lists", help="list the word lists and their sets, or make lists ready"
    )
    parser.set_defaults(run=_run)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--show", metavar="NAME", help="print the phrases of a list, or of a part: flavors/light"
    )
    instead.add_argument(
        "--prepare", action="store_true",
        help="compute and keep what the backbone makes of the lists, so that no picture waits for "
        "it",
    )
    instead.add_argument(
        "--get-classic", action="store_true",
        help="install the package clip-interrogator for its lists, without what it needs to run",
    )
    add_categories(parser, "with --prepare only these")
    add_engine(parser)


def _run(chosen: argparse.Namespace) -> int:
    with service_of(chosen) as service:
        if chosen.show is not None:
            _show(service, chosen.show)
        elif chosen.prepare:
            return _prepare(service, chosen)
        elif chosen.get_classic:
            print_line(f"The classic lists are in {service.get_classic()}.")
        else:
            _list(service)
    return DONE


def _list(service: Service) -> None:
    categories = service.categories()
    print_line("Sets of word lists")
    for name, one in service.word_sets().items():
        print_line(f"  {name:20} {one.about}".rstrip())
        choices = [
            choice.list if choice.count is None else f"{choice.list} ({choice.count})"
            for choice in one.choices
        ]
        for words, names in (
            ("", choices), ("without ", one.without), ("without the words ", one.leave_out),
            ("not here: ", one.missing(categories)),
        ):
            if names:
                print_line(f"      {words}{', '.join(names)}")
    print_line("Word lists")
    for name, category in categories.items():
        parts = f"{len(category.parts)} parts" if category.parts else ""
        print_line(
            f"  {name:20} {len(category.phrases):7} phrases  {parts:9}  {category.path or ''}"
        )
        for problem in category.problems[:_MOST_TOLD]:
            print_line(f"      {problem}")


def _show(service: Service, name: str) -> None:
    categories = service.categories()
    whole, slash, part = name.partition("/")
    if whole not in categories:
        near = catalog.did_you_mean(catalog.nearest(whole, categories))
        raise BadOption("show", f"There is no word list {whole!r}.{near}")
    category = categories[whole]
    if slash and part not in category.parts:
        near = catalog.did_you_mean(catalog.nearest(part, category.parts))
        raise BadOption("show", f"The word list {whole} has no part {part!r}.{near}")
    for phrase in category.phrases:
        if not slash or phrase in category.parts[part]:
            print_line(phrase)


def _prepare(service: Service, chosen: argparse.Namespace) -> int:
    announce_demo(chosen)
    try:
        named = categories_of(chosen)
        # Of a part nothing is kept by itself: its whole list is made ready.
        wholes = named and tuple(dict.fromkeys(name.partition("/")[0] for name in named))
        encoded = service.prepare(wholes, models_of(chosen))
    except Interrupted:
        say("Stopped before all lists were ready; the same command goes on from here.")
        return STOPPED
    for name, count in encoded.items():
        print_line(f"{name:20} {count:7} phrases computed" if count else f"{name:20} was ready")
    return DONE
