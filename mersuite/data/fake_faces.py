"""Made-up faces: drawn heads whose brows, mouth, eyes and restlessness follow a latent.

A face is drawn in coordinates whose origin is the middle of the face and whose unit is half its height; x grows to the
right and y downwards. Every shape has a soft edge of one pixel, so that motion of a part of a pixel shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_LATENT = 3.0
"""Latents are shown as if they lay within plus and minus this."""

_SKINS = ((236, 196, 168), (224, 177, 142), (205, 156, 120), (186, 134, 98), (246, 212, 190))
_HAIRS = ((38, 28, 24), (70, 46, 30), (110, 76, 44), (58, 54, 58), (92, 40, 26))
_IRISES = ((70, 46, 30), (52, 70, 96), (62, 84, 52), (44, 34, 30))
_CLOTHES = ((60, 84, 120), (120, 62, 66), (72, 104, 80), (96, 88, 112), (140, 120, 84), (64, 64, 72))
_BLINK_S = 3.5
"""Mean time between two blinks."""

CROP_SIZE = 112
"""Height and width of the pictures of a face alone, pixels."""
_CROP_CENTRE, _CROP_SCALE = (56.0, 60.0), 44.0

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a face looks like whatever it expresses: red, green, blue of its parts, and its proportions."""

    skin: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    half_width: float
    fringe: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """What a face does over time; each (frame,) float32 in units of the face.

    Attributes:
        shift_x: How far the head is to the right.
        shift_y: How far it is down.
        smile: By how much the corners of the mouth are higher than its middle.
        brow_height: How far the brows are up.
        brow_tilt: By how much the inner ends of the brows are higher than the outer ones.
        eye_open: Half the height of the eyes.
        mouth_open: Half the height of the open mouth; 0 is shut.
    """

    shift_x: np.ndarray
    shift_y: np.ndarray
    smile: np.ndarray
    brow_height: np.ndarray
    brow_tilt: np.ndarray
    eye_open: np.ndarray
    mouth_open: np.ndarray


def draw_look(rng: np.random.Generator) -> Look:
    """Draws what a person looks like."""
    skin, hair, iris, clothes = (
        options[int(rng.integers(len(options)))] for options in (_SKINS, _HAIRS, _IRISES, _CLOTHES)
    )
    half_width, fringe = float(rng.uniform(0.74, 0.84)), float(rng.uniform(0.58, 0.68))
    return Look(skin=skin, hair=hair, iris=iris, clothes=clothes, half_width=half_width, fringe=fringe)


def express(
    latent: np.ndarray, opening: np.ndarray | None, num_frames: int, rate_hz: float, rng: np.random.Generator
) -> Expression:
    """Gives how a face expresses a latent of the four FACE_CUES.

    Args:
        latent: (cue,) float64.
        opening: (frame,) 0 to 1, how far speech opens the mouth; None for somebody who says nothing.
        num_frames: Number of pictures.
        rate_hz: Pictures a second.
        rng: Source of the course of the head, blinks and small changes.
    """
    smile, brow_height, brow_tilt, energy = np.clip(latent, -MAX_LATENT, MAX_LATENT)
    time_s = np.arange(num_frames) / rate_hz
    sway = 0.016 * 2.0 ** (0.5 * energy)
    held = [0.06 * _wander(rng, time_s) for _ in range(3)]  # nobody holds a look quite still
    mouth = np.zeros(num_frames) if opening is None else 0.17 * 2.0 ** (0.25 * energy) * opening
    courses = {
        "shift_x": sway * _wander(rng, time_s),
        "shift_y": sway * _wander(rng, time_s),
        "smile": 0.045 * (smile + held[0]),
        "brow_height": 0.026 * (brow_height + held[1]),
        "brow_tilt": 0.05 * (brow_tilt + held[2]),
        "eye_open": (0.11 + 0.016 * energy) * (1 - _blinks(rng, time_s)),
        "mouth_open": mouth,
    }
    return Expression(**{name: course.astype(np.float32) for name, course in courses.items()})


def draw_crop(look: Look, expression: Expression) -> np.ndarray:
    """Draws a face alone, within whose pictures the head moves.

    Returns:
        (frame, CROP_SIZE, CROP_SIZE, 3) uint8, red, green, blue.
    """
    canvas = np.full((expression.shift_x.size, CROP_SIZE, CROP_SIZE, 3), 150, np.float32)
    draw_face(canvas, look, expression, _CROP_CENTRE, _CROP_SCALE)
    return np.rint(canvas).astype(np.uint8)


def draw_scene(
    people: Sequence[tuple[Look, Expression]], height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws people side by side, each in an equal part of the picture, before a plain wall.

    Args:
        people: From left to right.
        height: Pixels.
        width: Pixels.
        rng: Source of the colour of the wall and the places of the people.

    Returns:
        (frame, height, width, 3) uint8, red, green, blue.
    """
    num_frames, part = people[0][1].shift_x.size, width // len(people)
    wall = rng.uniform(110, 190, 3) * np.linspace(1.05, 0.75, height)[:, None, None]
    canvas = np.empty((num_frames, height, width, 3), np.float32)
    canvas[:] = wall
    scale = min(0.33 * height, 0.42 * part)
    for place, (look, expression) in enumerate(people):
        middle = part / 2 + rng.uniform(-1, 1) * max(part / 2 - 1.1 * scale, 0.0)
        area = canvas[:, :, place * part : (place + 1) * part]
        draw_face(area, look, expression, (middle, height * rng.uniform(0.44, 0.48)), scale)
    return np.rint(canvas).astype(np.uint8)


def draw_face(
    canvas: np.ndarray, look: Look, expression: Expression, centre: tuple[float, float], scale: float
) -> None:
    """Draws a head and shoulders into pictures, over what is there.

    Args:
        canvas: (frame, height, width, 3) float32, red, green, blue from 0 to 255; changed in place.
        look: Whose face.
        expression: What it does; as many frames as the canvas.
        centre: x and y of the middle of the resting face, pixels.
        scale: Half the height of the face, pixels.
    """
    brush = _Brush(canvas, expression, centre, scale)
    width = look.half_width
    brush.ellipse((0.0, 2.15), (1.45, 1.0), look.clothes, still=True)
    brush.ellipse((0.0, 1.0), (0.36, 0.55), _shade(look.skin, 0.72), still=True)
    brush.ellipse((0.0, -0.2), (width + 0.14, 0.98), look.hair)
    for side in (-1, 1):
        brush.ellipse((side * width, 0.05), (0.1, 0.2), _shade(look.skin, 0.82))
    brush.skin(look)
    brush.fringe(look)
    for side in (-1, 1):
        _draw_eye(brush, look, expression, side)
        brush.glow((side * 0.42, 0.32), (0.24, 0.2), _shade(look.skin, 1.08), 0.7)
    _draw_nose(brush, look)
    _draw_mouth(brush, look, expression)


def _draw_eye(brush: _Brush, look: Look, expression: Expression, side: int) -> None:
    x, y = side * 0.34, -0.14
    open_ = expression.eye_open
    brush.glow((x, y - 0.04), (0.3, 0.2), _shade(look.skin, 0.55), 0.75)
    brush.ellipse((x, y), (0.19, open_), (236, 234, 230))
    brush.ellipse((x, y), (np.minimum(0.085, open_), np.minimum(0.095, open_)), look.iris)
    brush.ellipse((x, y), (np.minimum(0.042, open_), np.minimum(0.045, open_)), (16, 12, 12))
    brush.arc((x, y), 0.2, -open_, 0.02, _shade(look.skin, 0.32))
    inner, outer = -0.36 - expression.brow_height - expression.brow_tilt, -0.33 - expression.brow_height
    brush.stroke((side * 0.14, inner), (side * 0.56, outer), 0.055, look.hair)


def _draw_nose(brush: _Brush, look: Look) -> None:
    brush.glow((0.0, 0.0), (0.1, 0.34), _shade(look.skin, 1.12), 0.8)
    brush.glow((0.0, 0.3), (0.22, 0.09), _shade(look.skin, 0.66), 0.75)
    for side in (-1, 1):
        brush.ellipse((side * 0.075, 0.27), (0.035, 0.022), _shade(look.skin, 0.4))


def _draw_mouth(brush: _Brush, look: Look, expression: Expression) -> None:
    red, green, blue = _shade(look.skin, 0.72)
    lips = (min(red + 18, 255), int(green * 0.72), int(blue * 0.76))
    brush.mouth((0.0, 0.56), 0.32, -expression.smile, expression.mouth_open + 0.055, lips)
    brush.mouth((0.0, 0.56), 0.27, -expression.smile, expression.mouth_open + 0.008, (58, 22, 24))
    teeth = np.maximum(expression.mouth_open - 0.07, 0.0)
    brush.mouth((0.0, 0.53 - expression.mouth_open * 0.35), 0.2, -expression.smile * 0.6, teeth * 0.5, (232, 228, 220))


class _Brush:
    """Draws soft-edged shapes that follow the head."""

    def __init__(self, canvas: np.ndarray, expression: Expression, centre: tuple[float, float], scale: float) -> None:
        self._canvas, self._centre, self._scale = canvas, centre, np.float32(scale)
        self._shift = (expression.shift_x[:, None, None], expression.shift_y[:, None, None])
        self._reach = max(float(np.abs(shift).max()) for shift in self._shift)

    def ellipse(
        self,
        middle: tuple[float, float],
        radii: tuple[float | np.ndarray, float | np.ndarray],
        colour: Colour,
        *,
        still: bool = False,
    ) -> None:
        """Fills an ellipse; still: it stays where it is when the head moves."""
        across, down = _columns(radii)
        area, x, y = self._area(middle, (_most(across), _most(down)), still=still)
        level = np.sqrt((x / np.maximum(across, 1e-3)) ** 2 + (y / np.maximum(down, 1e-3)) ** 2)
        thinner = np.minimum(across, down)
        self._blend(area, (1 - level) * thinner, colour)

    def glow(self, middle: tuple[float, float], radii: tuple[float, float], colour: Colour, strength: float) -> None:
        """Tints an ellipse, strongest in its middle."""
        area, x, y = self._area(middle, radii)
        fall = np.maximum(1 - (x / radii[0]) ** 2 - (y / radii[1]) ** 2, 0)
        self._tint(area, strength * fall, colour)

    def skin(self, look: Look) -> None:
        """Fills the face: a long oval, darker towards its rim."""
        area, x, y = self._area((0.0, 0.0), (look.half_width, 1.0))
        chin = look.half_width * (1 - 0.16 * np.maximum(y, 0) ** 2)
        level = np.sqrt((x / chin) ** 2 + y**2)
        self._blend(area, (1 - level) * look.half_width, _shade(look.skin, 0.78))
        inner = np.maximum(1 - level**3, 0)
        self._tint(area, inner, look.skin)

    def fringe(self, look: Look) -> None:
        """Fills the hair over the forehead."""
        area, x, y = self._area((0.0, -0.6), (look.half_width + 0.04, 0.5))
        y = y - 0.6  # from the middle of the face
        border = -look.fringe + 0.3 * (x / look.half_width) ** 2
        inside = 1.02 - np.sqrt((x / (look.half_width + 0.04)) ** 2 + (y / 1.06) ** 2)
        self._blend(area, np.minimum(border - y, inside), look.hair)

    def stroke(
        self,
        start: tuple[float, np.ndarray],
        end: tuple[float, np.ndarray],
        half_thickness: float,
        colour: Colour,
    ) -> None:
        """Draws a straight line with round ends between two points whose y changes over time."""
        (first_x, last_x), (first_y, last_y) = (start[0], end[0]), (start[1], end[1])
        middle_y = float((first_y.mean() + last_y.mean()) / 2)
        half_x = abs(last_x - first_x) / 2 + half_thickness
        half_y = float(max(np.abs(first_y - middle_y).max(), np.abs(last_y - middle_y).max())) + half_thickness
        area, x, y = self._area(((first_x + last_x) / 2, middle_y), (half_x, half_y))
        run, rise = last_x - first_x, (last_y - first_y)[:, None, None]
        from_x, from_y = x + run / 2, y + middle_y - first_y[:, None, None]
        along = np.clip((from_x * run + from_y * rise) / (run**2 + rise**2), 0, 1)
        distance = np.sqrt((from_x - along * run) ** 2 + (from_y - along * rise) ** 2)
        self._blend(area, half_thickness - distance, colour)

    def arc(
        self, middle: tuple[float, float], half_width: float, height: np.ndarray, half_thickness: float, colour: Colour
    ) -> None:
        """Draws a lid: an arc through both corners whose top is `height` below the middle (negative: above)."""
        area, x, y = self._area(middle, (half_width, _most(height) + half_thickness))
        course = height[:, None, None] * (1 - (x / half_width) ** 2)
        ends = (half_width - np.abs(x)) * 0.5
        self._blend(area, np.minimum(half_thickness - np.abs(y - course), ends), colour)

    def mouth(
        self,
        middle: tuple[float, float | np.ndarray],
        half_width: float,
        bend: np.ndarray,
        half_height: np.ndarray,
        colour: Colour,
    ) -> None:
        """Fills a lens that is bent: its corners lie `bend` lower than its middle."""
        reach = _most(half_height) + _most(bend)
        y_middle = np.broadcast_to(np.asarray(middle[1], np.float32), half_height.shape)
        area, x, y = self._area(
            (middle[0], float(y_middle.mean())), (half_width, reach + _most(y_middle - y_middle.mean()))
        )
        bow = (x / half_width) ** 2
        course = (y_middle - y_middle.mean())[:, None, None] + bend[:, None, None] * (bow - 0.4)
        lens = half_height[:, None, None] * np.maximum(1 - bow, 0) ** 0.7
        visible = np.where(half_height[:, None, None] > 1e-4, lens - np.abs(y - course), -1.0)
        self._blend(area, np.minimum(visible, half_width - np.abs(x)), colour)

    def _area(
        self, middle: tuple[float, float], radii: tuple[float, float], *, still: bool = False
    ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """Rows and columns that a shape can touch, and x and y of their pixels from the shape's middle."""
        margin = 2 / self._scale + (0 if still else self._reach)
        spans: list[slice] = []
        places: list[np.ndarray] = []
        for axis, size in ((0, self._canvas.shape[2]), (1, self._canvas.shape[1])):
            at = self._centre[axis] + middle[axis] * self._scale
            half = (radii[axis] + margin) * self._scale
            spans.append(slice(min(max(int(at - half), 0), size), min(max(int(at + half) + 2, 0), size)))
            pixels = np.arange(spans[axis].start, spans[axis].stop, dtype=np.float32) + np.float32(0.5)
            places.append((pixels - np.float32(at)) / self._scale)
        shift_x, shift_y = (np.float32(0), np.float32(0)) if still else self._shift
        return (spans[1], spans[0]), places[0][None, None, :] - shift_x, places[1][None, :, None] - shift_y

    def _blend(self, area: tuple[slice, slice], depth: np.ndarray, colour: Colour) -> None:
        """Paints where depth, the distance into the shape, is above 0; half a pixel to either side is mixed."""
        self._tint(area, np.clip(depth * self._scale + 0.5, 0, 1), colour)

    def _tint(self, area: tuple[slice, slice], share: np.ndarray, colour: Colour) -> None:
        part = self._canvas[:, area[0], area[1]]
        part += share.astype(np.float32)[..., None] * (np.array(colour, np.float32) - part)


def _columns(values: Sequence[float | np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(value, np.float32).reshape(-1, 1, 1) for value in values]


def _most(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(int(part * factor), 255) for part in colour)
    return red, green, blue


def _wander(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    """(time,): a sum of slow waves of unit variance over draws."""
    course = np.zeros(time_s.size)
    for frequency_hz in (0.37, 0.71, 1.3):
        amplitudes = rng.standard_normal(2) / np.sqrt(3)
        angle = 2 * np.pi * frequency_hz * time_s
        course += amplitudes[0] * np.sin(angle) + amplitudes[1] * np.cos(angle)
    return course


def _blinks(rng: np.random.Generator, time_s: np.ndarray) -> np.ndarray:
    """(time,) 0 (open) to 0.95 (shut): blinks of about 0.2 s."""
    shut = np.zeros(time_s.size)
    at_s = rng.exponential(_BLINK_S)
    while at_s < time_s[-1]:
        shut = np.maximum(shut, 0.95 * np.exp(-0.5 * ((time_s - at_s) / 0.07) ** 2))
        at_s += 0.6 + rng.exponential(_BLINK_S)
    return shut
