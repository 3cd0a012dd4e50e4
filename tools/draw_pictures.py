"""Draw labelled pictures of simple scenes from a seed, for the bundled demo models."""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Colour = tuple[int, int, int]
Point = tuple[float, float]

COUNTS = {1: "one", 2: "two", 3: "three"}

#: Each subject's plural; the singular is the key.
SUBJECTS = {
    "cat": "cats",
    "dog": "dogs",
    "bird": "birds",
    "fish": "fish",
    "butterfly": "butterflies",
    "mushroom": "mushrooms",
    "tree": "trees",
    "flower": "flowers",
    "house": "houses",
    "castle": "castles",
    "car": "cars",
    "boat": "boats",
    "rocket": "rockets",
    "robot": "robots",
    "cup": "cups",
    "umbrella": "umbrellas",
    "balloon": "balloons",
    "mountain": "mountains",
}

COLOURS: dict[str, Colour] = {
    "red": (214, 32, 36),
    "orange": (246, 134, 22),
    "yellow": (250, 218, 40),
    "green": (40, 164, 62),
    "blue": (36, 88, 216),
    "purple": (134, 48, 178),
    "pink": (252, 136, 190),
    "white": (246, 246, 246),
    "black": (30, 30, 34),
}

PLACES = (
    "on a beach",
    "in a forest",
    "in a city",
    "in the snow",
    "in the desert",
    "in a meadow",
    "on a farm",
    "in a room",
)

LIGHTS = ("on a sunny day", "at sunset", "at night", "in fog", "in the rain")

#: Every medium, and whether the subject's colour can still be told in it.
MEDIUMS = {
    "a photo": True,
    "an oil painting": True,
    "a watercolor painting": True,
    "pixel art": True,
    "low poly art": True,
    "a mosaic": True,
    "a stained glass window": True,
    "a line drawing": False,
    "a charcoal drawing": False,
    "a woodcut print": False,
    "a halftone print": False,
    "a blueprint": False,
    "neon art": False,
}

#: Every flavor, and whether it's drawn over any medium ("any"), or only over one that keeps
#: colour ("colour"). The ones in COLOURLESS_FLAVORS take that colour away.
FLAVORS = {
    "vignette": "any",
    "scan lines": "any",
    "film grain": "colour",
    "bokeh": "colour",
    "lens flare": "colour",
    "chromatic aberration": "colour",
    "sepia": "colour",
    "black and white": "colour",
}
COLOURLESS_FLAVORS = frozenset({"sepia", "black and white"})

#: What the project's own word lists have to contain for the demo models to be able to say it.
MEDIUM_PHRASES = tuple(MEDIUMS)
FLAVOR_PHRASES = (*FLAVORS, *LIGHTS)

SAMPLE_SEED = 777
SAMPLE_SIZE = 384


@dataclass(frozen=True)
class Scene:
    """What one picture shows; `seed` settles everything that no word names."""

    subject: str
    colour: str
    count: int
    place: str
    light: str
    medium: str
    flavors: tuple[str, ...]
    seed: int

    @property
    def shows_colour(self) -> bool:
        """Say whether the subject's colour can be seen in the finished picture."""
        return MEDIUMS[self.medium] and not COLOURLESS_FLAVORS.intersection(self.flavors)


@dataclass(frozen=True)
class Wording:
    """A text about a scene, with the facts that it states."""

    text: str
    facts: frozenset[str]


# --- Words ---------------------------------------------------------------------------------


def random_scene(generator: random.Random) -> Scene:
    """Choose every property of a scene at random."""
    medium = generator.choice(MEDIUM_PHRASES)
    fitting = [name for name, over in FLAVORS.items() if MEDIUMS[medium] or over == "any"]
    number = generator.choices((0, 1, 2), (4, 5, 2))[0]
    flavors = generator.sample(fitting, min(number, len(fitting)))
    if COLOURLESS_FLAVORS.issubset(flavors):
        flavors = flavors[:1]
    return Scene(
        subject=generator.choice(tuple(SUBJECTS)),
        colour=generator.choice(tuple(COLOURS)),
        count=generator.choices((1, 2, 3), (5, 3, 2))[0],
        place=generator.choice(PLACES),
        light=generator.choice(LIGHTS),
        medium=medium,
        flavors=tuple(flavors),
        seed=generator.getrandbits(32),
    )


def random_scenes(seed: int, number: int) -> list[Scene]:
    """Choose a number of scenes from a seed."""
    generator = random.Random(seed)
    return [random_scene(generator) for _ in range(number)]


def noun_phrase(subject: str, count: int, colour: str = "") -> str:
    """Word a counted thing: "a red cat", "three cats"."""
    noun = subject if count == 1 else SUBJECTS[subject]
    words = f"{colour} {noun}".strip()
    if count > 1:
        return f"{COUNTS[count]} {words}"
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def facts(scene: Scene) -> frozenset[str]:
    """Collect everything that can be said truly about a scene."""
    found = {scene.subject, COUNTS[scene.count], scene.place, scene.light, scene.medium}
    found.update(scene.flavors)
    if scene.shows_colour:
        found.add(scene.colour)
    return frozenset(found)


def caption(scene: Scene) -> str:
    """Word what is seen, leaving out how it's made: "two red cats on a beach at sunset"."""
    colour = scene.colour if scene.shows_colour else ""
    return f"{noun_phrase(scene.subject, scene.count, colour)} {scene.place} {scene.light}"


def describe(scene: Scene) -> Wording:
    """Word everything: the caption, the medium, the flavors."""
    return Wording(", ".join((caption(scene), scene.medium, *scene.flavors)), facts(scene))


def describe_partly(scene: Scene, generator: random.Random) -> Wording:
    """Word a random part of a scene, as a caption with phrases after it in any order."""
    said: set[str] = set()
    first: list[str] = []
    after = [scene.medium, *scene.flavors]
    if generator.random() < 0.7:
        with_colour = scene.shows_colour and generator.random() < 0.7
        first.append(noun_phrase(scene.subject, scene.count, scene.colour if with_colour else ""))
        said.update((scene.subject, COUNTS[scene.count]))
        said.update([scene.colour] if with_colour else [])
    for phrase in (scene.place, scene.light):
        place_it = generator.choice((first, after, None))
        if place_it is not None:
            place_it.append(phrase)
    after = generator.sample(after, generator.randint(0 if first else 1, len(after)))
    said.update(first[1:] if said else first, after)
    text = ", ".join([" ".join(first), *after] if first else after)
    return Wording(text, frozenset(said))


def phrase_tables() -> dict[str, list[str]]:
    """List the single phrases of each property; exactly one of a table's phrases fits a scene."""
    return {
        "subject": [noun_phrase(subject, 1) for subject in SUBJECTS],
        "colour": list(COLOURS),
        "count": list(COUNTS.values()),
        "place": list(PLACES),
        "light": list(LIGHTS),
        "medium": list(MEDIUMS),
    }


def labels(scene: Scene) -> dict[str, int]:
    """Give the index of the fitting phrase in each table; -1 where nothing can be told."""
    return {
        "subject": list(SUBJECTS).index(scene.subject),
        "colour": list(COLOURS).index(scene.colour) if scene.shows_colour else -1,
        "count": scene.count - 1,
        "place": PLACES.index(scene.place),
        "light": LIGHTS.index(scene.light),
        "medium": MEDIUM_PHRASES.index(scene.medium),
    }


# --- Shapes --------------------------------------------------------------------------------


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; `share` is the second one's part."""
    red, green, blue = (
        round(one + (other - one) * share) for one, other in zip(first, second, strict=True)
    )
    return red, green, blue


class Pen:
    """Draws shapes in a box whose own corners are (0, 0) and (1, 1)."""

    def __init__(self, image: Image.Image, left: float, top: float, scale: float) -> None:
        self.image, self.left, self.top, self.scale = image, left, top, scale
        self.canvas = ImageDraw.Draw(image)
        self.outline: Colour | None = None
        self.thickness = max(1, round(scale * 0.022))

    def place(self, points: Sequence[Point]) -> list[Point]:
        """Turn the box's coordinates into pixels."""
        return [(self.left + x * self.scale, self.top + y * self.scale) for x, y in points]

    def polygon(self, fill: Colour, *points: Point) -> None:
        """Fill a polygon and go round it with the outline's colour."""
        corners = self.place(points)
        self.canvas.polygon(corners, fill=fill)
        if self.outline:
            self.canvas.line([*corners, corners[0]], fill=self.outline, width=self.thickness)

    def box(self, fill: Colour, left: float, top: float, right: float, bottom: float) -> None:
        """Fill an upright rectangle."""
        self.polygon(fill, (left, top), (right, top), (right, bottom), (left, bottom))

    def oval(self, fill: Colour, x: float, y: float, across: float, down: float = 0.0) -> None:
        """Fill an ellipse given its middle and its two radii."""
        down = down or across
        corners = self.place([(x - across, y - down), (x + across, y + down)])
        self.canvas.ellipse(corners, fill=fill, outline=self.outline, width=self.thickness)

    def line(self, fill: Colour, width: float, *points: Point) -> None:
        """Draw a line whose width is a share of the box."""
        pixels = max(1, round(width * self.scale))
        self.canvas.line(self.place(points), fill=fill, width=pixels, joint="curve")

    def slice(
        self, fill: Colour, x: float, y: float, radius: float, start: float, end: float
    ) -> None:
        """Fill a slice of a disc, degrees counted clockwise from the right."""
        corners = self.place([(x - radius, y - radius), (x + radius, y + radius)])
        self.canvas.pieslice(
            corners, start, end, fill=fill, outline=self.outline, width=self.thickness
        )


def draw_cat(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a sitting cat: pointed ears, whiskers, a tail curled upwards."""
    pen.line(dark, 0.08, (0.7, 0.9), (0.9, 0.85), (0.95, 0.65), (0.88, 0.5))
    pen.oval(main, 0.5, 0.76, 0.26, 0.24)
    pen.polygon(main, (0.24, 0.32), (0.25, 0.03), (0.46, 0.2))
    pen.polygon(main, (0.76, 0.32), (0.75, 0.03), (0.54, 0.2))
    pen.oval(main, 0.5, 0.36, 0.28, 0.22)
    for side in (-1, 1):
        pen.oval(light, 0.5 + side * 0.11, 0.32, 0.055, 0.05)
        pen.line(dark, 0.02, (0.5 + side * 0.1, 0.44), (0.5 + side * 0.38, 0.4))
        pen.line(dark, 0.02, (0.5 + side * 0.1, 0.47), (0.5 + side * 0.37, 0.5))
    pen.polygon(dark, (0.46, 0.4), (0.54, 0.4), (0.5, 0.45))


def draw_dog(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a standing dog from the side: long body, four legs, hanging ear, raised tail."""
    pen.line(main, 0.07, (0.1, 0.5), (0.0, 0.24))
    for x in (0.12, 0.24, 0.52, 0.64):
        pen.box(main, x, 0.65, x + 0.09, 1.0)
    pen.oval(main, 0.4, 0.56, 0.33, 0.17)
    pen.polygon(main, (0.56, 0.6), (0.58, 0.25), (0.76, 0.3), (0.74, 0.6))
    pen.oval(main, 0.74, 0.28, 0.17, 0.15)
    pen.box(main, 0.8, 0.26, 1.0, 0.4)
    pen.oval(dark, 0.98, 0.29, 0.04)
    pen.oval(dark, 0.62, 0.3, 0.065, 0.17)
    pen.oval(light, 0.79, 0.23, 0.03)


def draw_bird(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a bird with one raised wing, a fan tail and two thin legs."""
    for x in (0.42, 0.54):
        pen.line(dark, 0.03, (x, 0.7), (x, 1.0))
        pen.line(dark, 0.03, (x - 0.06, 1.0), (x + 0.08, 1.0))
    pen.polygon(main, (0.25, 0.6), (0.0, 0.42), (0.0, 0.7))
    pen.oval(main, 0.47, 0.6, 0.29, 0.18)
    pen.oval(main, 0.74, 0.42, 0.14)
    pen.polygon((240, 170, 30), (0.86, 0.37), (1.0, 0.44), (0.86, 0.48))
    pen.polygon(dark, (0.34, 0.56), (0.62, 0.56), (0.26, 0.1))
    pen.oval(light, 0.78, 0.39, 0.03)


def draw_fish(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a fish from the side: forked tail, fins, scales."""
    pen.polygon(dark, (0.28, 0.6), (0.0, 0.36), (0.08, 0.6), (0.0, 0.84))
    pen.polygon(dark, (0.42, 0.42), (0.62, 0.22), (0.72, 0.44))
    pen.oval(main, 0.6, 0.6, 0.4, 0.22)
    pen.oval(light, 0.82, 0.54, 0.05)
    for x in (0.38, 0.5, 0.62):
        pen.line(dark, 0.025, (x, 0.46), (x + 0.05, 0.6), (x, 0.74))
    pen.line(dark, 0.025, (0.88, 0.68), (0.99, 0.64))


def draw_butterfly(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a butterfly with four spread wings."""
    for side in (-1, 1):
        pen.polygon(
            main, (0.5, 0.52), (0.5 + side * 0.2, 0.12), (0.5 + side * 0.5, 0.08),
            (0.5 + side * 0.46, 0.44), (0.5 + side * 0.2, 0.56),
        )  # fmt: skip
        pen.oval(main, 0.5 + side * 0.24, 0.75, 0.2)
        pen.oval(light, 0.5 + side * 0.33, 0.27, 0.07)
        pen.oval(dark, 0.5 + side * 0.25, 0.76, 0.07)
        pen.line(dark, 0.025, (0.5, 0.3), (0.5 + side * 0.12, 0.06))
    pen.oval(dark, 0.5, 0.58, 0.05, 0.32)


def draw_mushroom(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a mushroom: a spotted half-round cap on a pale stem."""
    del dark
    pen.polygon((236, 222, 196), (0.38, 0.5), (0.62, 0.5), (0.68, 1.0), (0.32, 1.0))
    pen.slice(main, 0.5, 0.56, 0.48, 180, 360)
    for x, y, radius in ((0.3, 0.42, 0.07), (0.52, 0.24, 0.08), (0.72, 0.43, 0.07)):
        pen.oval(light, x, y, radius)


def draw_tree(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a tree: a round crown of several discs on a brown trunk."""
    del light
    pen.polygon((112, 72, 40), (0.43, 0.5), (0.57, 0.5), (0.62, 1.0), (0.38, 1.0))
    for x, y, radius in ((0.25, 0.42, 0.22), (0.75, 0.42, 0.22), (0.38, 0.22, 0.2),
                         (0.63, 0.22, 0.2), (0.5, 0.42, 0.24)):  # fmt: skip
        pen.oval(main, x, y, radius)
    for x, y in ((0.3, 0.38), (0.66, 0.26), (0.55, 0.5), (0.76, 0.5)):
        pen.oval(dark, x, y, 0.035)


def draw_flower(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a flower: eight petals on a stem with two leaves."""
    del dark, light
    pen.line((44, 128, 48), 0.05, (0.5, 0.4), (0.5, 1.0))
    pen.polygon((60, 150, 60), (0.5, 0.9), (0.22, 0.66), (0.38, 0.9))
    pen.polygon((60, 150, 60), (0.5, 0.9), (0.78, 0.66), (0.62, 0.9))
    for step in range(8):
        angle = step * math.pi / 4
        pen.oval(main, 0.5 + 0.22 * math.cos(angle), 0.34 + 0.22 * math.sin(angle), 0.11)
    pen.oval((206, 150, 30), 0.5, 0.34, 0.13)


def draw_house(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a house: coloured walls, a steep roof, a chimney, a door, two windows."""
    pen.box(dark, 0.7, 0.08, 0.82, 0.4)
    pen.box(main, 0.1, 0.45, 0.9, 1.0)
    pen.polygon(dark, (0.0, 0.47), (0.5, 0.05), (1.0, 0.47))
    pen.box((104, 66, 40), 0.42, 0.66, 0.58, 1.0)
    pen.box(light, 0.18, 0.56, 0.34, 0.72)
    pen.box(light, 0.66, 0.56, 0.82, 0.72)


def draw_castle(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a castle: a wall with a gate between two tall towers, all with battlements."""
    del light
    for left, right, top in ((0.0, 0.28, 0.22), (0.72, 1.0, 0.22), (0.28, 0.72, 0.45)):
        tooth = (right - left) / 5
        for step in (0, 2, 4):
            start = left + step * tooth
            pen.box(main, start, top - 0.1, start + tooth, top + 0.05)
        pen.box(main, left, top, right, 1.0)
    pen.slice(dark, 0.5, 0.78, 0.13, 180, 360)
    pen.box(dark, 0.37, 0.78, 0.63, 1.0)
    for x in (0.14, 0.86):
        pen.box(dark, x - 0.04, 0.36, x + 0.04, 0.52)


def draw_car(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a car from the side: cabin, windows, two wheels."""
    del light
    pen.polygon(main, (0.2, 0.6), (0.32, 0.36), (0.7, 0.36), (0.84, 0.6))
    pen.polygon(main, (0.0, 0.6), (0.92, 0.58), (1.0, 0.68), (1.0, 0.86), (0.0, 0.86), (0.0, 0.7))
    pen.polygon((190, 222, 240), (0.3, 0.58), (0.37, 0.42), (0.5, 0.42), (0.5, 0.58))
    pen.polygon((190, 222, 240), (0.55, 0.58), (0.55, 0.42), (0.67, 0.42), (0.75, 0.58))
    for x in (0.24, 0.76):
        pen.oval((36, 36, 40), x, 0.87, 0.13)
        pen.oval((170, 170, 176), x, 0.87, 0.06)
    pen.line(dark, 0.025, (0.52, 0.62), (0.52, 0.82))


def draw_boat(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a sailing boat: a hull, a mast and two coloured sails."""
    del light
    pen.line((96, 62, 40), 0.04, (0.5, 0.02), (0.5, 0.76))
    pen.polygon(main, (0.54, 0.05), (0.54, 0.68), (0.95, 0.68))
    pen.polygon(main, (0.46, 0.15), (0.46, 0.68), (0.14, 0.68))
    pen.polygon(dark, (0.0, 0.75), (1.0, 0.75), (0.82, 1.0), (0.18, 1.0))


def draw_rocket(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a rocket standing on its flame, with fins and a round window."""
    pen.polygon((250, 170, 30), (0.4, 0.8), (0.6, 0.8), (0.5, 1.0))
    pen.polygon(dark, (0.34, 0.5), (0.12, 0.88), (0.36, 0.8))
    pen.polygon(dark, (0.66, 0.5), (0.88, 0.88), (0.64, 0.8))
    pen.polygon(
        main, (0.5, 0.0), (0.63, 0.15), (0.68, 0.35), (0.64, 0.82), (0.36, 0.82), (0.32, 0.35),
        (0.37, 0.15),
    )  # fmt: skip
    pen.oval(light, 0.5, 0.36, 0.1)


def draw_robot(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a robot: a square head with an antenna, a square body, straight arms and legs."""
    pen.line(dark, 0.03, (0.5, 0.2), (0.5, 0.04))
    pen.oval(dark, 0.5, 0.04, 0.04)
    pen.box(main, 0.3, 0.14, 0.7, 0.42)
    pen.box(main, 0.24, 0.46, 0.76, 0.8)
    for side in (-1, 1):
        pen.box(main, *sorted_pair(0.5 + side * 0.28, 0.5 + side * 0.4, 0.48, 0.76))
        pen.box(dark, *sorted_pair(0.5 + side * 0.06, 0.5 + side * 0.2, 0.8, 1.0))
        pen.oval(light, 0.5 + side * 0.1, 0.25, 0.05)
    pen.box(dark, 0.4, 0.34, 0.6, 0.38)
    pen.box(light, 0.36, 0.54, 0.64, 0.66)


def sorted_pair(one: float, other: float, top: float, bottom: float) -> tuple[float, ...]:
    """Order a mirrored box's sides: left, top, right, bottom."""
    return min(one, other), top, max(one, other), bottom


def draw_cup(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a steaming cup with a handle on a saucer."""
    pen.oval(dark, 0.45, 0.95, 0.44, 0.05)
    pen.line(dark, 0.07, (0.7, 0.5), (0.93, 0.52), (0.95, 0.66), (0.86, 0.77), (0.66, 0.78))
    pen.polygon(main, (0.12, 0.42), (0.76, 0.42), (0.66, 0.93), (0.24, 0.93))
    pen.oval((90, 56, 34), 0.44, 0.42, 0.32, 0.06)
    for x in (0.3, 0.45, 0.6):
        pen.line(light, 0.03, (x, 0.32), (x + 0.05, 0.24), (x - 0.03, 0.15), (x + 0.03, 0.05))


def draw_umbrella(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw an open umbrella with a hooked handle and scalloped edge."""
    del light
    pen.line((90, 60, 40), 0.04, (0.5, 0.05), (0.5, 0.92), (0.56, 0.98), (0.64, 0.92))
    pen.slice(main, 0.5, 0.55, 0.49, 180, 360)
    for x in (0.17, 0.5, 0.83):
        pen.slice(dark, x, 0.55, 0.16, 180, 360)
    pen.line(dark, 0.02, (0.34, 0.55), (0.5, 0.06), (0.66, 0.55))


def draw_balloon(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a hot-air balloon: a striped ball over a basket."""
    del light
    pen.line((90, 60, 40), 0.025, (0.24, 0.55), (0.42, 0.86))
    pen.line((90, 60, 40), 0.025, (0.76, 0.55), (0.58, 0.86))
    pen.polygon(main, (0.14, 0.5), (0.86, 0.5), (0.6, 0.76), (0.4, 0.76))
    pen.oval(main, 0.5, 0.36, 0.38, 0.35)
    pen.oval(dark, 0.5, 0.36, 0.13, 0.35)
    pen.box((140, 92, 48), 0.4, 0.85, 0.6, 1.0)


def draw_mountain(pen: Pen, main: Colour, dark: Colour, light: Colour) -> None:
    """Draw a mountain: one big peak with a pale jagged top and a lower shoulder."""
    pen.polygon(dark, (0.45, 1.0), (0.78, 0.4), (1.08, 1.0))
    pen.polygon(main, (-0.06, 1.0), (0.42, 0.06), (0.86, 1.0))
    pen.polygon(
        light, (0.42, 0.06), (0.28, 0.33), (0.37, 0.29), (0.43, 0.38), (0.49, 0.29), (0.55, 0.34)
    )


SUBJECT_SHAPES: dict[str, Callable[[Pen, Colour, Colour, Colour], None]] = {
    "cat": draw_cat,
    "dog": draw_dog,
    "bird": draw_bird,
    "fish": draw_fish,
    "butterfly": draw_butterfly,
    "mushroom": draw_mushroom,
    "tree": draw_tree,
    "flower": draw_flower,
    "house": draw_house,
    "castle": draw_castle,
    "car": draw_car,
    "boat": draw_boat,
    "rocket": draw_rocket,
    "robot": draw_robot,
    "cup": draw_cup,
    "umbrella": draw_umbrella,
    "balloon": draw_balloon,
    "mountain": draw_mountain,
}


# --- Places and light ----------------------------------------------------------------------

#: The sky's colours at its top and at the horizon, and the light's tint with its strength.
SKIES: dict[str, tuple[Colour, Colour, Colour, float]] = {
    "on a sunny day": ((70, 150, 240), (180, 224, 250), (255, 255, 255), 0.0),
    "at sunset": ((120, 60, 130), (255, 150, 60), (255, 140, 70), 0.2),
    "at night": ((6, 10, 40), (26, 36, 86), (14, 20, 70), 0.5),
    "in fog": ((206, 210, 212), (222, 224, 224), (214, 216, 218), 0.5),
    "in the rain": ((84, 94, 108), (140, 150, 160), (96, 106, 122), 0.25),
}


def tinted(colour: Colour, light: str, strength: float = 1.0) -> Colour:
    """Colour a thing by the scene's light."""
    _, _, tint, share = SKIES[light]
    return mix(colour, tint, share * strength)


def paint_sky(image: Image.Image, horizon: float, light: str, chance: random.Random) -> None:
    """Paint the sky's gradient with the sun, the moon, stars or clouds in it."""
    pixels, canvas = image.width, ImageDraw.Draw(image)
    top, bottom, _, _ = SKIES[light]
    steps = 40
    for step in range(steps):
        edge = horizon * pixels * step / steps
        canvas.rectangle(
            (0, edge, pixels, edge + pixels / steps + 1), fill=mix(top, bottom, step / steps)
        )
    sky = Pen(image, 0, 0, pixels)
    x = chance.uniform(0.12, 0.88)
    if light == "at sunset":
        sky.oval((255, 210, 90), x, horizon - 0.04, 0.13)
        for row in range(3):
            y = chance.uniform(0.06, horizon - 0.25) + row * 0.03
            sky.oval((255, 120, 110), chance.uniform(0.1, 0.9), y, 0.18, 0.015)
    elif light == "at night":
        for _ in range(36):
            radius = chance.uniform(0.004, 0.009)
            sky.oval((255, 255, 230), chance.random(), chance.uniform(0, horizon), radius)
        y = chance.uniform(0.1, 0.18)
        sky.oval((250, 246, 210), x, y, 0.075)
        sky.oval(top, x + 0.035, y - 0.02, 0.065)
    elif light == "on a sunny day":
        y = chance.uniform(0.1, 0.17)
        for step in range(10):
            angle = step * math.pi / 5
            far = (x + 0.13 * math.cos(angle), y + 0.13 * math.sin(angle))
            sky.line((255, 226, 60), 0.012, (x, y), far)
        sky.oval((255, 226, 60), x, y, 0.075)
        paint_cloud(sky, (x + 0.45) % 1, chance.uniform(0.1, 0.22), (255, 255, 255))
    elif light == "in the rain":
        for x in (0.15, 0.5, 0.85):
            paint_cloud(sky, x + chance.uniform(-0.08, 0.08), chance.uniform(0.04, 0.12),
                        (58, 64, 76))  # fmt: skip


def paint_cloud(sky: Pen, x: float, y: float, colour: Colour) -> None:
    """Paint one cloud."""
    for shift, radius in ((-0.08, 0.045), (0.0, 0.065), (0.08, 0.05)):
        sky.oval(colour, x + shift, y, radius * 1.3, radius)


def paint_place(image: Image.Image, scene: Scene, chance: random.Random) -> None:
    """Paint the sky and the ground with what stands there."""
    horizon = chance.uniform(0.5, 0.6)
    land = Pen(image, 0, 0, image.width)
    if scene.place == "in a room":
        paint_room(land, scene.light, chance)
    else:
        paint_sky(image, horizon, scene.light, chance)
        PLACE_PAINTERS[scene.place](land, horizon, scene.light, chance)


def paint_room(land: Pen, light: str, chance: random.Random) -> None:
    """Paint a striped wall with a window, over floor boards."""
    pixels = land.image.width
    sky = Image.new("RGB", (pixels, pixels))
    paint_sky(sky, 1.0, light, chance)
    wall, floor = tinted((226, 206, 170), light, 0.8), tinted((150, 96, 56), light, 0.8)
    land.box(wall, 0, 0, 1, 0.72)
    for step in range(1, 12):
        land.line(mix(wall, (150, 120, 90), 0.35), 0.006, (step / 12, 0), (step / 12, 0.72))
    land.box(floor, 0, 0.72, 1, 1)
    for step in range(-3, 14):
        land.line(mix(floor, (0, 0, 0), 0.4), 0.008, (step / 10, 0.72), (step / 5 - 0.5, 1))
    left, top = chance.uniform(0.05, 0.5), 0.07
    width, height = 0.42, 0.36
    frame = tinted((250, 250, 246), light, 0.7)
    land.box(frame, left - 0.025, top - 0.025, left + width + 0.025, top + height + 0.025)
    # The window looks out on a narrowed sky, with a sun or moon like the ones outdoors.
    view = sky.crop((0, 0, pixels, round(pixels * height / width)))
    view = view.resize((round(pixels * width), round(pixels * height)))
    land.image.paste(view, (round(pixels * left), round(pixels * top)))
    land.line(frame, 0.018, (left + width / 2, top), (left + width / 2, top + height))
    land.line(frame, 0.018, (left, top + height / 2), (left + width, top + height / 2))


def paint_beach(land: Pen, horizon: float, light: str, chance: random.Random) -> None:
    """Paint a sea with waves, sand and a palm tree."""
    sea, sand = tinted((30, 140, 200), light), tinted((240, 218, 160), light)
    shore = horizon + 0.16
    land.box(sea, 0, horizon, 1, shore)
    land.box(sand, 0, shore, 1, 1)
    for row in range(3):
        y = horizon + 0.03 + row * 0.05
        wave = [(x / 24, y + (0.008 if x % 2 else -0.008)) for x in range(25)]
        land.line(mix(sea, (255, 255, 255), 0.6), 0.01, *wave)
    x = chance.choice((0.07, 0.93))
    lean = 0.05 if x < 0.5 else -0.05
    trunk, leaf = tinted((130, 90, 50), light), tinted((30, 130, 60), light)
    land.line(trunk, 0.03, (x, shore + 0.1), (x + lean, horizon - 0.24))
    for angle in (-160, -130, -50, -20, 15, 165):
        reach = math.radians(angle)
        tip = (x + lean + 0.16 * math.cos(reach), horizon - 0.24 + 0.12 * math.sin(reach) + 0.03)
        land.line(leaf, 0.028, (x + lean, horizon - 0.24), tip)


def paint_pine(land: Pen, x: float, foot: float, height: float, leaf: Colour) -> None:
    """Paint a pine of three stacked triangles."""
    land.box((84, 56, 36), x - height * 0.05, foot - height * 0.2, x + height * 0.05, foot)
    for step in range(3):
        bottom, half = foot - height * (0.15 + 0.25 * step), height * (0.28 - 0.06 * step)
        land.polygon(leaf, (x - half, bottom), (x + half, bottom), (x, bottom - height * 0.38))


def paint_forest(land: Pen, horizon: float, light: str, chance: random.Random) -> None:
    """Paint two rows of dark pines over a mossy ground."""
    land.box(tinted((70, 96, 44), light), 0, horizon, 1, 1)
    for row, count in ((0, 9), (1, 7)):
        for step in range(count):
            leaf = mix((14, 74, 40), (40, 110, 60), chance.random())
            x = (step + chance.uniform(0.2, 0.8)) / count
            foot = horizon + 0.03 + row * 0.07
            paint_pine(land, x, foot, chance.uniform(0.34, 0.5), tinted(leaf, light, 0.9))


def paint_city(land: Pen, horizon: float, light: str, chance: random.Random) -> None:
    """Paint a row of tower blocks with windows behind a road."""
    land.box(tinted((96, 98, 104), light), 0, horizon, 1, 1)
    window = (255, 230, 120) if light == "at night" else tinted((210, 226, 240), light)
    left = -0.02
    while left < 1.0:
        width, top = chance.uniform(0.12, 0.19), horizon - chance.uniform(0.2, 0.46)
        grey = chance.randint(100, 165)
        land.box(tinted((grey, grey, grey + 8), light), left, top, left + width, horizon + 0.04)
        for row in range(int((horizon - top) / 0.06)):
            for column in range(3):
                x, y = left + width * (0.14 + 0.28 * column), top + 0.02 + row * 0.06
                land.box(window, x, y, x + width * 0.16, y + 0.03)
        left += width
    for step in range(5):
        land.box(tinted((240, 240, 240), light), step * 0.22, 0.93, step * 0.22 + 0.12, 0.955)


def paint_snow(land: Pen, horizon: float, light: str, chance: random.Random) -> None:
    """Paint white hills, white-topped pines and a snowman."""
    white = tinted((244, 248, 255), light, 0.8)
    land.box(white, 0, horizon, 1, 1)
    for x in (0.15, 0.8):
        land.oval(mix(white, (150, 180, 220), 0.25), x, horizon + 0.14, 0.5, 0.22)
    for _ in range(3):
        x, height = chance.random(), chance.uniform(0.2, 0.3)
        paint_pine(land, x, horizon + 0.05, height, tinted((206, 222, 236), light, 0.8))
    x, y = chance.choice((0.07, 0.93)), horizon + 0.1
    edge = mix(white, (90, 120, 160), 0.6)
    for shift, radius in ((0.0, 0.075), (-0.11, 0.055), (-0.19, 0.04)):
        land.oval(edge, x, y + shift, radius + 0.008)
        land.oval(white, x, y + shift, radius)
    land.oval((240, 120, 20), x, y - 0.19, 0.012)
    land.line((60, 40, 30), 0.012, (x - 0.12, y - 0.18), (x, y - 0.11), (x + 0.12, y - 0.18))


def paint_desert(land: Pen, horizon: float, light: str, chance: random.Random) -> None:
    """Paint dunes and tall cacti."""
    sand = tinted((222, 160, 84), light)
    land.box(sand, 0, horizon, 1, 1)
    for x, shade in ((chance.uniform(0, 0.4), 0.15), (chance.uniform(0.5, 1), 0.3)):
        land.oval(mix(sand, (120, 60, 20), shade), x, horizon + 0.1, 0.45, 0.16)
    land.box(mix(sand, (255, 230, 170), 0.3), 0, horizon + 0.12, 1, 1)
    cactus = tinted((40, 116, 62), light)
    for x in (chance.uniform(0.05, 0.2), chance.uniform(0.8, 0.95)):
        land.line(cactus, 0.045, (x, horizon + 0.16), (x, horizon - 0.18))
        for side in (-1, 1):
            lift = horizon - 0.02 - 0.05 * side
            arm = x + side * 0.07
            land.line(cactus, 0.03, (x, lift), (arm, lift), (arm, lift - 0.1))


def paint_meadow(land: Pen, horizon: float, light: str, chance: random.Random) -> None:
    """Paint green hills full of grass and small flowers."""
    grass = tinted((110, 196, 70), light)
    land.box(grass, 0, horizon, 1, 1)
    land.oval(mix(grass, (40, 120, 40), 0.3), chance.random(), horizon + 0.1, 0.5, 0.16)
    land.box(grass, 0, horizon + 0.1, 1, 1)
    for _ in range(46):
        x, y = chance.random(), chance.uniform(horizon + 0.08, 1)
        blade = mix(grass, (20, 90, 20), 0.6)
        land.line(blade, 0.006, (x - 0.012, y - 0.03), (x, y), (x + 0.012, y - 0.03))
    for _ in range(26):
        petal = chance.choice(((255, 255, 255), (255, 230, 80), (240, 120, 160)))
        x, y = chance.random(), chance.uniform(horizon + 0.08, 1)
        land.oval(tinted(petal, light), x, y, 0.012)


def paint_farm(land: Pen, horizon: float, light: str, chance: random.Random) -> None:
    """Paint ploughed rows, a wooden fence and a barn."""
    soil = tinted((150, 104, 62), light)
    land.box(soil, 0, horizon, 1, 1)
    for step in range(-10, 21):
        row = mix(soil, (60, 34, 14), 0.5)
        land.line(row, 0.014, (0.5 + (step / 10 - 0.5) * 0.5, horizon), (step / 5 - 0.5, 1))
    x = chance.choice((0.14, 0.86))
    barn, roof = tinted((120, 60, 48), light), tinted((80, 80, 84), light)
    land.box(barn, x - 0.11, horizon - 0.16, x + 0.11, horizon + 0.02)
    land.polygon(
        roof, (x - 0.14, horizon - 0.15), (x - 0.07, horizon - 0.26), (x + 0.07, horizon - 0.26),
        (x + 0.14, horizon - 0.15),
    )  # fmt: skip
    land.line((236, 226, 210), 0.012, (x - 0.05, horizon), (x + 0.05, horizon - 0.12))
    land.line((236, 226, 210), 0.012, (x + 0.05, horizon), (x - 0.05, horizon - 0.12))
    wood = tinted((214, 176, 120), light)
    for y in (horizon - 0.02, horizon + 0.06):
        land.line(wood, 0.018, (0, y), (1, y))
    for step in range(9):
        post = step / 8
        land.box(wood, post - 0.014, horizon - 0.06, post + 0.014, horizon + 0.13)


PLACE_PAINTERS: dict[str, Callable[[Pen, float, str, random.Random], None]] = {
    "on a beach": paint_beach,
    "in a forest": paint_forest,
    "in a city": paint_city,
    "in the snow": paint_snow,
    "in the desert": paint_desert,
    "in a meadow": paint_meadow,
    "on a farm": paint_farm,
}


def paint_subjects(image: Image.Image, scene: Scene, chance: random.Random) -> None:
    """Paint the scene's subject as often as it counts, side by side in the foreground."""
    scale = {1: chance.uniform(0.44, 0.56), 2: chance.uniform(0.33, 0.4),
             3: chance.uniform(0.26, 0.3)}[scene.count]  # fmt: skip
    step = 1 / scene.count
    main = mix(COLOURS[scene.colour], (128, 128, 128), chance.uniform(0, 0.12))
    is_dark = sum(main) < 180
    dark = mix(main, (255, 255, 255), 0.3) if is_dark else mix(main, (0, 0, 0), 0.4)
    # The rim keeps a subject apart from a background of its own colour.
    rim = (200, 200, 206) if is_dark else mix(main, (0, 0, 0), 0.75)
    pale = mix((255, 255, 255), main, 0.06)
    if scene.colour == "white":
        pale = (120, 150, 190)
    # Subjects stand nearer than their surroundings, so the light tints them less.
    shades = [tinted(shade, scene.light, 0.45) for shade in (main, dark, pale)]
    for index in range(scene.count):
        spare = max(0.0, step - scale)
        left = index * step + spare * chance.uniform(0.25, 0.75) + min(0.0, step - scale) / 2
        top = chance.uniform(0.93, 0.97) - scale - chance.uniform(0, 0.05)
        pixels = image.width
        ground = Pen(image, left * pixels, top * pixels, scale * pixels)
        shadow = tinted((70, 66, 60), scene.light, 0.6)
        ground.oval(shadow, 0.5, 1.0, 0.46, 0.05)
        ground.outline = rim
        SUBJECT_SHAPES[scene.subject](ground, shades[0], shades[1], shades[2])


def paint_weather(image: Image.Image, scene: Scene, chance: random.Random) -> None:
    """Lay drifting fog or falling rain over the picture."""
    pixels = image.width
    if scene.light == "in fog":
        veil = Image.new("L", (8, 8))
        values = [round(255 * chance.uniform(0.05, 0.45)) for _ in range(64)]
        veil.putdata(values)
        veil = veil.resize(image.size, Image.Resampling.BICUBIC)
        image.paste((222, 224, 226), (0, 0), veil)
    elif scene.light == "in the rain":
        rain = Pen(image, 0, 0, pixels)
        for _ in range(70):
            x, y = chance.uniform(0, 1.05), chance.uniform(-0.05, 1)
            rain.line((196, 212, 230), 0.006, (x, y), (x - 0.025, y + 0.08))


def paint(scene: Scene, size: int) -> tuple[Image.Image, Image.Image]:
    """Paint a scene in flat colours, without its medium, and the mask of its subjects.

    Everything is painted at twice the size, for smooth edges.
    """
    chance = random.Random(scene.seed)
    image = Image.new("RGB", (size * 2, size * 2))
    paint_place(image, scene, chance)
    behind = image.copy()
    paint_subjects(image, scene, chance)
    mask = ImageChops.difference(image, behind).convert("L").point(lambda level: 255 * (level > 8))
    paint_weather(image, scene, chance)
    if chance.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    half = (size, size)
    return image.resize(half, Image.Resampling.BOX), mask.resize(half, Image.Resampling.BOX)


# --- Mediums -------------------------------------------------------------------------------


def to_image(pixels: np.ndarray) -> Image.Image:
    """Turn floats from 0 to 1 into a picture, grey ones into equal channels."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return Image.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def to_floats(image: Image.Image) -> np.ndarray:
    """Turn a picture into floats from 0 to 1."""
    return np.asarray(image, dtype=np.float32) / 255


def brightness(pixels: np.ndarray) -> np.ndarray:
    """Reduce colours to their brightness."""
    return pixels @ np.array([0.3, 0.59, 0.11], dtype=np.float32)


def blurred(image: Image.Image, share: float) -> Image.Image:
    """Blur by a radius given as a share of the width."""
    return image.filter(ImageFilter.GaussianBlur(image.width * share))


def smooth_noise(noise: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Make soft noise from 0 to 1 with about so many blobs across."""
    small = Image.fromarray((noise.random((cells, cells)) * 255).astype(np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255


def edges(image: Image.Image) -> np.ndarray:
    """Find how sharply colours change, from 0 to 1."""
    pixels = to_floats(blurred(image, 0.002))
    reach = max(1, round(image.width / 190))
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    across = np.abs(padded[reach:-reach, 2 * reach :] - padded[reach:-reach, : -2 * reach])
    down = np.abs(padded[2 * reach :, reach:-reach] - padded[: -2 * reach, reach:-reach])
    return (across + down).max(axis=2).clip(0, 1)


def ink(image: Image.Image) -> np.ndarray:
    """Find the lines that a pen would draw, from 0 to 1."""
    return ((edges(image) - 0.08) / 0.2).clip(0, 1)


def stretched(grey: np.ndarray) -> np.ndarray:
    """Spread greys from black to white, so that night and fog leave something to see."""
    low, high = np.percentile(grey, (1, 99))
    return ((grey - low) / max(0.2, float(high - low))).clip(0, 1)


def as_photo(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Shade softly from one corner, and blur a little, as a lens does."""
    size = image.width
    slope = np.linspace(1.08, 0.92, size, dtype=np.float32)
    shade = slope[:, None] * (0.96 + 0.08 * smooth_noise(noise, size, 6))
    return to_image(to_floats(blurred(image, 0.003)) * shade[..., None])


def as_oil_painting(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Cover the picture with short strokes of thick paint that follow a common direction."""
    size = image.width
    source = to_floats(blurred(image, 0.004))
    canvas = blurred(image, 0.006)
    stroke = ImageDraw.Draw(canvas)
    number = 1300
    places = noise.random((number, 2))
    turns = noise.normal(0, 0.35, number) + noise.uniform(0, math.pi)
    lights = noise.uniform(0.8, 1.2, number)
    length, width = size * 0.02, max(1, round(size * 0.012))
    spots = (places * (size - 1)).astype(int)
    colours = (source[spots[:, 1], spots[:, 0]] * lights[:, None] * 255).clip(0, 255).astype(int)
    shifts = np.stack([np.cos(turns), np.sin(turns)], axis=1) * length
    starts, ends = places * size - shifts, places * size + shifts
    for start, end, colour in zip(starts.tolist(), ends.tolist(), colours.tolist(), strict=True):
        stroke.line((*start, *end), fill=tuple(colour), width=width)
    return canvas


def as_watercolor(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Thin the colours into soft blots with darker rims, on rough white paper."""
    size = image.width
    wavy = warped(image, noise, 0.012, 12)
    soft = to_floats(blurred(wavy, 0.006))
    wash = smooth_noise(noise, size, 9) * 0.5 + smooth_noise(noise, size, 28) * 0.3
    rims = edges(wavy) * 0.25
    pale = 1 - (1 - soft) * (0.45 + 0.5 * wash)[..., None] - rims[..., None]
    steps = np.linspace(0, 1, size, dtype=np.float32)
    border = np.minimum(np.minimum(steps, 1 - steps)[:, None], np.minimum(steps, 1 - steps))
    shown = ((border - 0.02 - 0.05 * smooth_noise(noise, size, 14)) / 0.02).clip(0, 1)
    paper = 0.97 - 0.04 * smooth_noise(noise, size, 60)
    return to_image(paper[..., None] * (1 - shown[..., None]) + pale * shown[..., None])


def warped(image: Image.Image, noise: np.random.Generator, share: float, cells: int) -> Image.Image:
    """Shift pixels about by up to a share of the width."""
    size = image.width
    shifts = [(smooth_noise(noise, size, cells) - 0.5) * 2 * share * size for _ in range(2)]
    rows, columns = np.indices((size, size))
    rows = (rows + shifts[0]).round().astype(int).clip(0, size - 1)
    columns = (columns + shifts[1]).round().astype(int).clip(0, size - 1)
    return Image.fromarray(np.asarray(image)[rows, columns])


def as_pixel_art(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Reduce the picture to few big square pixels of few colours."""
    del noise
    cells = 32
    small = np.asarray(image.resize((cells, cells), Image.Resampling.BOX), np.float32)
    small = (np.round(small / 255 * 5) * 51).astype(np.uint8)
    return Image.fromarray(small).resize(image.size, Image.Resampling.NEAREST)


def as_low_poly(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Cut the picture into triangles of one colour each."""
    size, cells = image.width, 30
    grid = np.stack(np.meshgrid(np.arange(cells + 1), np.arange(cells + 1)), axis=2) / cells
    grid[1:-1, 1:-1] += noise.uniform(-0.35, 0.35, (cells - 1, cells - 1, 2)) / cells
    corners = grid * size
    source = to_floats(blurred(image, 0.006))
    canvas = Image.new("RGB", image.size)
    draw = ImageDraw.Draw(canvas)
    a, b = corners[:-1, :-1], corners[:-1, 1:]
    c, d = corners[1:, :-1], corners[1:, 1:]
    triangles = np.concatenate([np.stack([a, b, c], axis=2), np.stack([b, d, c], axis=2)])
    triangles = triangles.reshape(-1, 3, 2)
    middles = triangles.mean(axis=1).astype(int).clip(0, size - 1)
    lights = noise.uniform(0.82, 1.12, (len(triangles), 1))
    colours = (source[middles[:, 1], middles[:, 0]] * lights * 255).clip(0, 255).astype(int)
    shapes = triangles.reshape(-1, 6).tolist()
    for shape, colour in zip(shapes, colours.tolist(), strict=True):
        draw.polygon(shape, fill=tuple(colour))
    return canvas


def as_mosaic(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Lay the picture with small uneven tiles and pale joints between them."""
    cells, size = 30, image.width
    small = to_floats(image.resize((cells, cells), Image.Resampling.BOX))
    small *= noise.uniform(0.78, 1.18, (cells, cells, 1))
    tiles = to_floats(to_image(small).resize(image.size, Image.Resampling.NEAREST))
    place = (np.arange(size, dtype=np.float32) + 0.5) / size * cells % 1
    inside = ((0.5 - np.abs(place - 0.5)) > 0.12).astype(np.float32)
    joint = (1 - inside[:, None] * inside[None, :])[..., None]
    return to_image(tiles * (1 - joint) + np.float32(0.84) * joint)


def as_stained_glass(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Colour pieces of glass strongly and join them with black lead."""
    cells = 9
    steps = (np.arange(cells) + 0.5) / cells
    seeds = np.stack(np.meshgrid(steps, steps), axis=2).reshape(-1, 2)
    seeds = seeds + noise.uniform(-0.05, 0.05, seeds.shape)
    # Nearest pieces are found coarsely: lead lines are wider than the coarse steps.
    coarse = 96
    line = (np.arange(coarse, dtype=np.float32) + 0.5) / coarse
    seeds = seeds.astype(np.float32)
    apart = (line[None, :, None] - seeds[:, 0]) ** 2 + (line[:, None, None] - seeds[:, 1]) ** 2
    nearest = np.partition(apart, 1, axis=2)[..., :2]
    gap = np.sqrt(nearest[..., 1]) - np.sqrt(nearest[..., 0])
    lead = Image.fromarray(((gap < 0.013) * 255).astype(np.uint8)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    light = noise.uniform(0.75, 1.2, len(seeds))[apart.argmin(axis=2)].astype(np.float32)
    light = np.asarray(
        Image.fromarray(light).resize(image.size, Image.Resampling.NEAREST), np.float32
    )
    flat = to_floats(image)
    grey = flat.mean(axis=2, keepdims=True)
    vivid = grey + (flat - grey) * 1.5
    black = np.maximum(np.asarray(lead, np.float32) / 255, (edges(image) * 2.5 - 0.4).clip(0, 1))
    return to_image(vivid * light[..., None] * (1 - black[..., None] * 0.95))


def as_line_drawing(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Keep only thin dark lines on white paper."""
    del noise
    return to_image(0.98 - 0.9 * ink(image))


def as_charcoal(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Smudge greys with a slanting grain on rough paper, under soft dark lines."""
    size = image.width
    grey = stretched(brightness(to_floats(blurred(image, 0.012))))
    dust = noise.random((160, 160)).astype(np.float32) - 0.5
    slanted = sum(np.roll(dust, (step, -step), axis=(0, 1)) for step in range(4)) / 2
    rough = np.asarray(Image.fromarray(slanted).resize((size, size), Image.Resampling.BILINEAR))
    lines = to_floats(blurred(to_image(ink(image)), 0.005))[..., 0]
    return to_image(0.36 + 0.52 * grey + 0.5 * rough * (1.1 - grey) - 0.5 * lines)


def as_woodcut(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Cut light areas out of black in wavy parallel grooves."""
    size, grooves = image.width, 26
    grey = stretched(brightness(to_floats(blurred(image, 0.006))))
    rows = np.arange(size, dtype=np.float32)[:, None] / size
    wave = (smooth_noise(noise, size, 5) - 0.5) * 0.06
    level = 0.5 + 0.5 * np.sin((rows + wave) * 2 * math.pi * grooves)
    cut = ((grey * 1.25 - 0.12 - level) * 8 + 0.5).clip(0, 1)
    return to_image((cut * (1 - ink(image)))[..., None] * [0.96, 0.93, 0.85] + 0.04)


def as_halftone(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Print dots on a slanted grid, bigger ones where it's darker."""
    del noise
    size, cells = image.width, 28
    grey = 0.15 + 0.85 * stretched(brightness(to_floats(blurred(image, 0.006))))
    rows, columns = np.indices((size, size), dtype=np.float32) / size * cells
    across, down = (columns + rows) * 0.7071 % 1 - 0.5, (columns - rows) * 0.7071 % 1 - 0.5
    reach = np.sqrt(across**2 + down**2)
    dots = ((0.72 * np.sqrt(1.02 - grey) - reach) * size / cells * 0.8 + 0.5).clip(0, 1)
    return to_image(0.97 - 0.9 * np.maximum(dots, 0.9 * ink(image)))


def as_blueprint(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Draw white lines and a fine grid on blue paper."""
    size = image.width
    place = np.arange(size, dtype=np.float32) / size * 16 % 1 < 0.14
    grid = (place[:, None] | place[None, :]) * np.float32(0.22)
    white = np.maximum(ink(image) * 0.95, grid)[..., None]
    paper = np.array([0.06, 0.24, 0.58]) * (0.9 + 0.2 * smooth_noise(noise, size, 5))[..., None]
    return to_image(paper * (1 - white) + white)


def as_neon(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Turn lines into glowing tubes of changing hue on black."""
    size = image.width
    lines = ink(image)
    turn = smooth_noise(noise, size, 3)[..., None] * 2 + noise.random()
    hue = 0.5 + 0.5 * np.cos(2 * math.pi * (turn + np.array([0, 0.33, 0.67])))
    tubes = lines[..., None] * hue
    glow = to_floats(blurred(to_image(tubes), 0.018)) * 1.6
    return to_image(0.02 + tubes + glow + (lines**2 * 0.3)[..., None])


MEDIUM_FILTERS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "a photo": as_photo,
    "an oil painting": as_oil_painting,
    "a watercolor painting": as_watercolor,
    "pixel art": as_pixel_art,
    "low poly art": as_low_poly,
    "a mosaic": as_mosaic,
    "a stained glass window": as_stained_glass,
    "a line drawing": as_line_drawing,
    "a charcoal drawing": as_charcoal,
    "a woodcut print": as_woodcut,
    "a halftone print": as_halftone,
    "a blueprint": as_blueprint,
    "neon art": as_neon,
}


# --- Flavors -------------------------------------------------------------------------------


def add_vignette(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Darken the corners."""
    line = np.linspace(-1, 1, len(pixels), dtype=np.float32)
    far = line[:, None] ** 2 + line[None, :] ** 2
    return pixels * (1 - noise.uniform(0.8, 0.95) * ((far - 0.45) / 1.2).clip(0, 1))[..., None]


def add_scan_lines(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Darken every other row of an old screen."""
    del noise
    rows = np.arange(len(pixels), dtype=np.float32) / len(pixels)
    dark = 0.62 + 0.38 * np.cos(rows * 2 * math.pi * 30)
    return pixels * dark[:, None, None] + 0.04


def add_film_grain(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Sprinkle grey grain over everything."""
    size, cells = len(pixels), 128
    grain = Image.fromarray(noise.normal(0, 0.13, (cells, cells)).astype(np.float32))
    spread = np.asarray(grain.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    return pixels + spread[..., None]


def add_bokeh(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Float big bright see-through discs over the picture."""
    size = len(pixels)
    discs = Image.new("RGB", (size * 2, size * 2))
    for _ in range(14):
        layer = Pen(discs, 0, 0, size * 2)
        colour = mix((255, 235, 190), tuple(noise.integers(120, 256, 3).tolist()), 0.5)
        x, y, radius = noise.random(), noise.uniform(0, 0.75), noise.uniform(0.03, 0.08)
        layer.oval(mix(colour, (0, 0, 0), 0.2), x, y, radius)
        layer.oval(mix(colour, (0, 0, 0), 0.45), x, y, radius * 0.85)
    light = to_floats(discs.resize((size, size), Image.Resampling.BOX))
    return 1 - (1 - pixels) * (1 - light)


def add_lens_flare(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Lay a bright star in an upper corner, with a chain of rings across the picture."""
    size = len(pixels)
    flare = Image.new("RGB", (size * 2, size * 2))
    layer = Pen(flare, 0, 0, size * 2)
    x = noise.uniform(0.06, 0.18)
    y = noise.uniform(0.06, 0.18)
    if noise.random() < 0.5:
        x = 1 - x
    rings = (
        (0.45, 0.05, (60, 120, 60)),
        (0.75, 0.03, (120, 70, 40)),
        (1.1, 0.08, (50, 60, 130)),
        (1.5, 0.05, (120, 50, 110)),
    )
    for share, radius, colour in rings:
        layer.oval(colour, x + (0.5 - x) * share * 1.2, y + (0.5 - y) * share * 1.2, radius)
    for step in range(8):
        angle = step * math.pi / 4 + 0.3
        tip = (x + 0.32 * math.cos(angle), y + 0.32 * math.sin(angle))
        layer.line((230, 220, 190), 0.012, (x, y), tip)
    layer.oval((255, 250, 235), x, y, 0.06)
    sharp = to_floats(flare.resize((size, size), Image.Resampling.BOX))
    glow = to_floats(blurred(to_image(sharp), 0.03)) * 1.2
    return 1 - (1 - pixels) * (1 - np.maximum(sharp, glow).clip(0, 1))


def add_chromatic_aberration(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Shift red one way and blue the other."""
    del noise
    shift = max(1, round(len(pixels) * 0.018))
    shifted = np.pad(pixels, ((0, 0), (shift, shift), (0, 0)), mode="edge")
    return np.stack(
        [shifted[:, 2 * shift :, 0], pixels[..., 1], shifted[:, : -2 * shift, 2]], axis=2
    )


def add_sepia(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Turn the picture brown."""
    del noise
    return brightness(pixels)[..., None] * [1.08, 0.86, 0.6] + 0.03


def add_black_and_white(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Take all colour away."""
    del noise
    return np.repeat(brightness(pixels)[..., None], 3, axis=2)


FLAVOR_FILTERS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "vignette": add_vignette,
    "scan lines": add_scan_lines,
    "film grain": add_film_grain,
    "bokeh": add_bokeh,
    "lens flare": add_lens_flare,
    "chromatic aberration": add_chromatic_aberration,
    "sepia": add_sepia,
    "black and white": add_black_and_white,
}


def draw(scene: Scene, size: int) -> Image.Image:
    """Draw a scene as a square picture; the same scene and size give the same pixels."""
    return draw_with_mask(scene, size)[0]


def draw_with_mask(scene: Scene, size: int) -> tuple[Image.Image, Image.Image]:
    """Draw a scene, and the mask of where its subjects are."""
    noise = np.random.default_rng(scene.seed)
    image, mask = paint(scene, size)
    image = MEDIUM_FILTERS[scene.medium](image, noise)
    if not scene.flavors:
        return image, mask
    pixels = to_floats(image)
    # Colour goes first, or it would come back with the coloured lights of the others.
    for flavor in sorted(scene.flavors, key=lambda name: name not in COLOURLESS_FLAVORS):
        pixels = FLAVOR_FILTERS[flavor](pixels, noise)
    return to_image(pixels), mask


# --- Samples -------------------------------------------------------------------------------

SAMPLES = (
    Scene("cat", "red", 2, "on a beach", "at sunset", "a watercolor painting", (), 1),
    Scene("castle", "purple", 1, "in the snow", "at night", "pixel art", (), 2),
    Scene("car", "yellow", 1, "in a city", "in the rain", "a photo", ("film grain",), 3),
    Scene("fish", "orange", 3, "in a room", "on a sunny day", "a stained glass window", (), 4),
    Scene("house", "blue", 1, "in a meadow", "on a sunny day", "an oil painting", (), 5),
    Scene("robot", "green", 2, "in a forest", "at night", "neon art", (), 6),
    Scene("rocket", "white", 1, "in the desert", "on a sunny day", "a blueprint", (), 7),
    Scene("umbrella", "pink", 2, "on a farm", "at sunset", "low poly art", ("vignette",), 8),
)


def file_name(scene: Scene) -> str:
    """Name a picture by what's on it."""
    words = (caption(scene), scene.medium, *scene.flavors)
    return "-".join(" ".join(words).split())


def write_samples(folder: Path) -> None:
    """Draw the sample pictures, which no training or evaluation seed gives."""
    folder.mkdir(parents=True, exist_ok=True)
    for scene in SAMPLES:
        picture = draw(replace(scene, seed=scene.seed + SAMPLE_SEED), SAMPLE_SIZE)
        picture.save(folder / f"{file_name(scene)}.jpg", quality=90)


def main() -> None:
    """Draw the samples, or a few random pictures with their descriptions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, metavar="DIR", help="draw the sample pictures")
    parser.add_argument("--out", type=Path, metavar="DIR", help="draw random pictures")
    parser.add_argument("--number", type=int, default=20, help="how many random pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=SAMPLE_SIZE)
    arguments = parser.parse_args()
    if arguments.samples:
        write_samples(arguments.samples)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for index, scene in enumerate(random_scenes(arguments.seed, arguments.number)):
            draw(scene, arguments.size).save(arguments.out / f"{index:04}.png")
            print(f"{index:04}.png\t{describe(scene).text}")


if __name__ == "__main__":
    main()
