"""A small drawn re-identification set: people by clothing, build and bag; cameras by tint, light, view and background.

Every image is a function of (seed, person, camera, take) alone. Colours are few and shared, each camera shifts them
its own way and stands before its own scene, so that an image resembles others of its camera more than others of its
person: what a network must learn to see through.
"""

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from dhm.randomness import generator

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
"""Folders of the Market-1501 layout, by split."""
HEIGHT, WIDTH = 288, 144
"""Pixels of the canvas; images of other sizes are scaled from it before they are exposed."""
CAMERAS = 4
TRAIN_PEOPLE, TEST_PEOPLE = 40, 40
TAKES = 3  # images of a person on a camera; of the test people's the first is a query
DISTRACTORS, JUNK_SHOTS = 40, 20  # strangers, and bad crops, in the gallery
_PERSON, _CAMERA, _TAKE = 1, 2, 3  # what a draw is for
_SKIN = ("#f1c9a5", "#d9a066", "#8d5524", "#5c3a21")
_HAIR = ("#1c1612", "#4a2f1d", "#b08d57", "#8a8a8a")
_CLOTH = ("#b3262e", "#274b9f", "#2f7d3b", "#d8b62b", "#22242a", "#d9d9d6", "#6d3f86", "#c76b2a")
_LEGS = ("#23252b", "#2e4674", "#8a7a5c", "#77797c", "#4c2f27", "#cfcbc0")

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Shot:
    """Who was drawn, seen by which camera, and which take of it. Identity -1 is a bad crop, 0 a stranger."""

    identity: int
    camera: int
    take: int

    @property
    def name(self) -> str:
        """A file name of the Market-1501 form."""
        person = f"{self.identity:04d}" if self.identity >= 0 else "-1"
        return f"{person}_c{self.camera}s1_{self.take:06d}_00.jpg"


class _Draw:
    """Random choices, one after the other, from a position."""

    def __init__(self, *position: int) -> None:
        self.rng = generator(*position)

    def real(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.rng, dtype=torch.float64))

    def index(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.rng))

    def colour(self, palette: tuple[str, ...]) -> Colour:
        """One of a palette, a little off."""
        text = palette[self.index(len(palette))]
        hue, light, saturation = colorsys.rgb_to_hls(*(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)))
        light = min(max(light + self.real(-0.05, 0.05), 0.0), 1.0)
        red, green, blue = colorsys.hls_to_rgb((hue + self.real(-0.02, 0.02)) % 1, light, saturation)
        return round(255 * red), round(255 * green), round(255 * blue)


def shots() -> dict[str, list[Shot]]:
    """The splits "train", "query" and "gallery"."""
    people = range(1, TRAIN_PEOPLE + TEST_PEOPLE + 1)
    cameras = range(1, CAMERAS + 1)
    train, test = people[:TRAIN_PEOPLE], people[TRAIN_PEOPLE:]
    extra = [Shot(0, 1 + i % CAMERAS, i) for i in range(DISTRACTORS)]
    extra += [Shot(-1, 1 + i % CAMERAS, i) for i in range(JUNK_SHOTS)]
    return {
        "train": [Shot(who, camera, take) for who in train for camera in cameras for take in range(TAKES)],
        "query": [Shot(who, camera, 0) for who in test for camera in cameras],
        "gallery": extra + [Shot(who, camera, take) for who in test for camera in cameras for take in range(1, TAKES)],
    }


def write(folder: str | Path, seed: int = 0) -> Path:
    """Draw the set into a folder of the Market-1501 layout, as JPEG; the folder."""
    for split, listed in shots().items():
        inside = Path(folder) / FOLDERS[split]
        inside.mkdir(parents=True, exist_ok=True)
        for shot in listed:
            draw(shot, seed).save(inside / shot.name, quality=95)
    return Path(folder)


def draw(shot: Shot, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    """One image in RGB, of `size` (height, width)."""
    who = shot.identity if shot.identity > 0 else 10_000 * (2 + shot.identity) + shot.take
    take = _Draw(seed, _TAKE, who, shot.camera, shot.take)
    camera = _Draw(seed, _CAMERA, shot.camera)
    canvas, view = _scene(camera, take)
    zoom, left, top = take.real(0.9, 1.08), take.real(-14, 14), take.real(-12, 12)
    if shot.identity < 0:  # a detector's bad crop: half a person, far off the middle
        zoom, left, top = take.real(1.4, 1.9), take.real(40, 75) * (-1) ** take.index(2), take.real(-90, 90)
    figure = _Figure(_Draw(seed, _PERSON, who), take, view, zoom, WIDTH / 2 + left, HEIGHT / 2 + top)
    figure.onto(canvas)
    if take.real(0, 1) < 0.2:  # something stands before the legs
        edge = take.real(0.72, 0.86) * HEIGHT
        ImageDraw.Draw(canvas).rectangle([0, edge, WIDTH, HEIGHT], fill=take.colour(_LEGS))
    return _exposed(canvas.resize(size[::-1], Image.Resampling.BILINEAR), camera, take)


def _scene(camera: _Draw, take: _Draw) -> tuple[Image.Image, float]:
    """The camera's background, shifted a little from take to take, and the angle people are seen at (0: front)."""
    grey = [round(camera.real(60, 200)) for _ in range(2)]
    wall, ground = (tuple(min(255, max(0, g + round(camera.real(-30, 30)))) for _ in range(3)) for g in grey)
    horizon, shift = camera.real(0.35, 0.75) * HEIGHT + take.real(-12, 12), take.real(-30, 30)
    canvas = Image.new("RGB", (WIDTH, HEIGHT), wall)
    pen = ImageDraw.Draw(canvas)
    pen.rectangle([0, horizon, WIDTH, HEIGHT], fill=ground)
    for _ in range(5):  # doors, posts, windows
        x, breadth = camera.real(-20, WIDTH) + shift, camera.real(6, 45)
        top, bottom = camera.real(-0.1, 0.6), camera.real(0.7, 1.0)
        pen.rectangle([x, top * horizon, x + breadth, bottom * horizon], fill=camera.colour(_CLOTH + _LEGS))
    for _ in range(3):  # lines on the ground
        y = horizon + camera.real(0, 1) * (HEIGHT - horizon)
        pen.line([0, y, WIDTH, y + camera.real(-15, 15)], fill=camera.colour(_LEGS), width=4)
    return canvas, (camera.real(0, 360) + take.real(-40, 40)) % 360


def _exposed(canvas: Image.Image, camera: _Draw, take: _Draw) -> Image.Image:
    """What the camera makes of it: tint, gamma and gain of its own, light and grain of the moment."""
    pixels = np.asarray(canvas, dtype=np.float64) / 255
    tint = np.array([camera.real(0.6, 1.2) for _ in range(3)])
    gamma, gain, haze = camera.real(0.7, 1.5), take.real(0.75, 1.15), camera.real(0.0, 0.15)
    grain = torch.randn((*pixels.shape[:2], 1), generator=take.rng, dtype=torch.float64).numpy()
    pixels = haze + (1 - haze) * gain * tint * pixels**gamma + 0.02 * grain
    return Image.fromarray(np.round(255 * pixels.clip(0, 1)).astype(np.uint8))


class _Figure:
    """A person, drawn from feet to hair around (x, y), the middle of the body. Lengths are in 1 / 100 of the canvas."""

    def __init__(self, person: _Draw, take: _Draw, view: float, zoom: float, x: float, y: float) -> None:
        self.tall, self.broad = person.real(0.86, 1.04), person.real(0.8, 1.25)
        self.skin, self.hair = person.colour(_SKIN), person.colour(_HAIR)
        self.top, self.second = person.colour(_CLOTH), person.colour(_CLOTH)
        self.bottom, self.shoes, self.bag_colour = person.colour(_LEGS), person.colour(_LEGS), person.colour(_CLOTH)
        self.pattern, self.legs, self.bag, self.style = (person.index(n) for n in (4, 3, 4, 3))
        self.stride, self.unit = take.real(0.2, 1.0), zoom * HEIGHT / 100
        self.x, self.y = x, y
        facing = np.cos(np.radians(view))  # 1 from the front, -1 from behind
        self.front, self.behind, self.side = facing > 0.5, facing < -0.5, abs(facing) <= 0.5
        self.way = 1 if view < 180 else -1
        self.girth = self.broad * (0.62 + 0.38 * abs(facing))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place on the canvas of a point of the body: x from its middle, y from the head (0) to the feet (80)."""
        return self.x + x * self.unit, self.y + (y - 40) * self.tall * self.unit

    def shape(self, colour: Colour, *points: tuple[float, float]) -> None:
        self.pen.polygon([self.at(*point) for point in points], fill=colour)

    def oval(self, colour: Colour, left: float, top: float, right: float, bottom: float) -> None:
        self.pen.ellipse([*self.at(left, top), *self.at(right, bottom)], fill=colour)

    def onto(self, canvas: Image.Image) -> None:
        """Draw the person."""
        self.pen = ImageDraw.Draw(canvas)
        self._bag(before=False)
        self._legs()
        self._torso()
        self._head()
        self._bag(before=True)

    def _legs(self) -> None:
        reach = (6 if self.side else 2) * self.stride + 1
        hip, end = 5.2 * self.girth, (79, 60, 79)[self.legs]  # trousers, shorts, skirt
        for foot in (-1, 1):
            middle, ankle = foot * hip / 2, foot * (hip / 2 + reach)
            knee = (middle + ankle) / 2
            cover = self.skin if self.legs == 2 else self.bottom
            self.shape(self.skin, (middle - 2.6, 42), (middle + 2.6, 42), (ankle + 1.7, 79), (ankle - 1.7, 79))
            bottom, width = (ankle, 2.2) if end == 79 else (knee, 2.9)
            self.shape(cover, (middle - hip / 2 - 0.3, 42), (middle + hip / 2 + 0.3, 42), (bottom + width, end),
                       (bottom - width, end))  # fmt: skip
            toe = 2.5 * self.way if self.side else 0
            self.oval(self.shoes, ankle - 2.6 + min(toe, 0), 77.5, ankle + 2.6 + max(toe, 0), 81.5)
        if self.legs == 2:
            self.shape(self.bottom, (-hip, 41), (hip, 41), (hip + 3, 61), (-hip - 3, 61))

    def _torso(self) -> None:
        shoulder, hip = 8.2 * self.girth, 6.0 * self.girth
        swing = (5 if self.side else 2.5) * self.stride
        for arm in (-1, 1):  # the arms hang behind the torso
            x = arm * shoulder * (0.3 if self.side else 1)
            hand = x + arm * swing
            self.shape(self.top, (x - 2, 15), (x + 2, 15), (hand + 1.8, 38), (hand - 1.8, 38))
            self.oval(self.skin, hand - 1.9, 37, hand + 1.9, 42)
        self.shape(self.top, (-shoulder, 16), (-shoulder * 0.6, 13), (shoulder * 0.6, 13), (shoulder, 16), (hip, 44),
                   (-hip, 44))  # fmt: skip
        if self.pattern == 1:  # stripes
            for y in (20, 27, 34):
                self.shape(self.second, (-hip, y), (hip, y), (hip, y + 3), (-hip, y + 3))
        elif self.pattern == 2:  # the lower half of another colour
            self.shape(self.second, (-hip * 1.1, 30), (hip * 1.1, 30), (hip, 44), (-hip, 44))
        elif self.pattern == 3 and not self.behind:  # an open jacket
            self.shape(self.second, (-2, 13), (2, 13), (2.6, 44), (-2.6, 44))

    def _head(self) -> None:
        self.oval(self.skin, -4, 0, 4, 13)
        self.oval(self.hair, -4.3, -0.8, 4.3, 11 if self.behind else 4.8)
        if self.side:  # the back of the head
            self.oval(self.hair, -2.2 - 2.2 * self.way, 0, 2.2 - 2.2 * self.way, 10)
        if self.style == 1:  # long hair: on both sides of the face, or down the back
            strands = {True: (-4.0, 4.0), False: (-2.0 * self.way if self.side else 0.0,)}[self.front]
            width = 1.4 if self.front else 2.6 if self.side else 4.3
            for x in strands:
                self.shape(self.hair, (x - width, 3), (x + width, 3), (x + width, 18), (x - width, 18))
        elif self.style == 2:  # a cap
            self.oval(self.second, -4.6, -1.5, 4.6, 4.2)
            if self.side:
                self.oval(self.second, min(0, 7 * self.way), 1.6, max(0, 7 * self.way), 4.2)

    def _bag(self, before: bool) -> None:
        """A backpack, a shoulder bag or one in the hand; before or behind the body as the view has it."""
        colour, edge = self.bag_colour, 8.2 * self.girth
        if self.bag == 1 and self.behind and before:
            self.shape(colour, (-edge * 0.75, 15), (edge * 0.75, 15), (edge * 0.7, 36), (-edge * 0.7, 36))
        elif self.bag == 1 and self.side and not before:
            x = -self.way * edge * 0.6
            self.oval(colour, x - 6, 15, x + 6, 37)
        elif self.bag == 1 and self.front and before:
            for side in (-1, 1):
                self.shape(colour, (side * 5 - 1, 13), (side * 5 + 1, 13), (side * 5 + 1, 31), (side * 5 - 1, 31))
        elif self.bag == 2 and before:
            self.shape(colour, (-edge * 0.6, 13), (-edge * 0.6 + 2, 13), (edge * 0.9, 40), (edge * 0.9 - 2, 40))
            self.shape(colour, (edge * 0.5, 38), (edge * 0.5 + 8, 38), (edge * 0.5 + 8, 49), (edge * 0.5, 49))
        elif self.bag == 3 and before:
            x = edge + 2 * self.stride
            self.shape(colour, (x - 4, 43), (x + 4, 43), (x + 5, 58), (x - 5, 58))
