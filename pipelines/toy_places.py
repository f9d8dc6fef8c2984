"""Places of the toy world: sky, horizon and ground with their grain, and which pixel is which stuff."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipelines.toy_objects import Array, noise

STUFF = ("sky", "sea", "sand", "grass", "mountain", "forest", "snow", "road", "building", "wall", "floor")
Reals = NDArray[np.float32] | NDArray[np.float64]
Colour = Sequence[float] | Reals


@dataclass(frozen=True)
class Backdrop:
    """A place without objects: colours (h, w, 3) in 0..1, index into STUFF (h, w), and the row of the horizon."""

    rgb: Array
    stuff: NDArray[np.uint8]
    horizon: float
    light: float  # direction, radians
    gain: Array  # (3,) colour and strength of the light


def backdrop(r: Generator, place: str, width: int, height: int) -> Backdrop:
    """Draws a place (one of PLACES) in this size."""
    canvas = _Canvas(r, width, height)
    PLACES[place](canvas)
    gain = r.uniform(0.8, 1.12) * (1 + r.uniform(-0.06, 0.06, 3))
    rgb = np.clip(canvas.rgb, 0, 1)
    return Backdrop(rgb, canvas.stuff, canvas.horizon, float(r.uniform(-2.4, -0.7)), gain.astype(np.float32))


class _Canvas:
    """What the places are painted with: layers from a line downwards, gradients and grain."""

    def __init__(self, r: Generator, width: int, height: int) -> None:
        self.r, self.width, self.height = r, width, height
        self.rows = np.arange(height, dtype=np.float32)[:, None]
        self.columns = np.arange(width, dtype=np.float32)[None]
        self.horizon = height * float(r.uniform(0.42, 0.62))
        self.rgb: Array = np.empty((height, width, 3), np.float32)
        self.stuff: NDArray[np.uint8] = np.zeros((height, width), np.uint8)

    def noise(self, cells: float, stretch: float = 1.0) -> Array:
        """Grain of the whole picture, (h, w)."""
        return noise(self.r, self.height, self.width, cells, stretch)

    def ridge(self, top: float, swing: float, cells: int) -> Array:
        """A wavy line around row `top`, as a row per column: (1, w)."""
        return np.asarray(top + swing * noise(self.r, 2, self.width, 2, self.width / (cells + 1))[:1], np.float32)

    def ramp(self, first: Colour, last: Colour, start: float, stop: float) -> Array:
        """A colour that changes from row `start` to row `stop`: (h, 1, 3)."""
        t = np.clip((self.rows - start) / max(stop - start, 1), 0, 1)[..., None]
        return np.asarray(np.asarray(first) * (1 - t) + np.asarray(last) * t, np.float32)

    def blend(self, share: Reals, colour: Colour) -> None:
        """Mixes a colour in, by its share per pixel (h, w)."""
        self.rgb += share.astype(np.float32)[..., None] * (np.asarray(colour, np.float32) - self.rgb)

    def lay(self, name: str, line: Array | float, colours: Array, grain: Reals | float = 1.0) -> None:
        """Covers all below the line with some stuff; colours (h, 1, 3) times grain (h, w)."""
        top = max(0, int(np.min(line)) - 1)
        cover = np.clip(self.rows[top:] - line + 0.5, 0, 1) + np.zeros_like(self.columns)
        below, shade = self.rgb[top:], np.broadcast_to(np.asarray(grain, np.float32), self.stuff.shape)[top:]
        below += cover[..., None] * (colours[top:] * shade[..., None] - below)
        self.stuff[top:][cover >= 0.5] = STUFF.index(name)

    def ground(self, name: str, line: Array | float, colour: Colour, rough: float) -> None:
        """Rough ground that pales towards the horizon."""
        near = np.asarray(colour) * self.r.uniform(0.75, 1.1)
        grain = self.noise(self.height / 14, 2.5) + 0.8 * self.noise(self.height / 3, 2)
        depth = rough * (0.4 + 0.6 * np.clip((self.rows - self.horizon) / (self.height - self.horizon), 0, 1))
        self.lay(name, line, self.ramp(0.55 * near + 0.35, near, self.horizon, self.height), 1 + depth * grain)

    def sky(self) -> None:
        """Day, dusk or overcast, with clouds."""
        hour = self.r.random()
        top, low = ((0.22, 0.47, 0.84), (0.76, 0.88, 0.97))
        if hour < 0.2:
            top, low = (0.32, 0.30, 0.56), (0.98, 0.66, 0.42)
        elif hour < 0.4:
            top, low = (0.62, 0.66, 0.71), (0.84, 0.86, 0.87)
        self.rgb[:] = self.ramp(top, low, 0, self.horizon)
        clouds = self.noise(4, 2.5) + 0.6 * self.noise(9, 2) - self.r.uniform(-0.1, 0.6)
        self.blend(0.75 * np.clip(clouds, 0, 1), (1, 1, 1))

    def far(self, top: float, swing: float, cells: int, high: Colour, low: Colour) -> None:
        """Mountains or dunes that end at the horizon."""
        h = self.height
        self.lay(
            "mountain",
            self.ridge(self.horizon - top * h, swing * h, cells),
            self.ramp(high, low, 0.2 * h, self.horizon),
        )

    def houses(self, dark: float, window: Colour) -> None:
        """A row of buildings on the horizon."""
        r, x, foot = self.r, 0.0, int(self.horizon)
        while x < self.width:
            wide, tall = r.uniform(0.07, 0.2) * self.width, r.uniform(0.08, 0.36) * self.height
            a, b, top = int(x), int(min(self.width, x + wide)), int(self.horizon - tall)
            self.rgb[top : foot + 1, a:b] = dark * r.uniform(0.35, 0.75) * r.uniform(0.85, 1.1, 3)
            self.stuff[top : foot + 1, a:b] = STUFF.index("building")
            pane = max(3, self.height // 45)
            lit = r.random((max(1, (foot - top) // (2 * pane)), max(1, (b - a) // (2 * pane)))) < 0.6
            windows = np.kron(lit, np.pad(np.ones((pane, pane), bool), ((pane, 0), (pane, 0))))
            tile = self.rgb[top:foot, a:b][: windows.shape[0], : windows.shape[1]]
            tile[windows[: tile.shape[0], : tile.shape[1]]] = window
            x += wide * r.uniform(1.0, 1.25)


def _meadow(c: _Canvas) -> None:
    c.sky()
    c.far(0.08, 0.1, 3, (0.5, 0.58, 0.7), (0.55, 0.68, 0.6))
    c.ground("grass", c.ridge(c.horizon, 0.02 * c.height, 2), (0.34, 0.58, 0.2), 0.22)


def _beach(c: _Canvas) -> None:
    c.sky()
    waves = np.sin((c.rows - c.horizon).clip(0) ** 0.7 * 3 + 4 * c.noise(10, 3))
    c.lay("sea", c.horizon, c.ramp((0.3, 0.55, 0.72), (0.1, 0.42, 0.55), c.horizon, c.height), 1 + 0.1 * waves)
    shore = c.ridge(c.horizon + 0.4 * (c.height - c.horizon), 0.05 * c.height, 3)
    c.ground("sand", shore, (0.88, 0.76, 0.54), 0.1)
    c.blend(0.8 * np.exp(-(((c.rows - shore) / (0.012 * c.height + 1)) ** 2)), (1, 1, 1))  # foam


def _forest(c: _Canvas) -> None:
    c.sky()
    leaves = 1 + 0.5 * c.noise(14) + 0.3 * c.noise(40)
    green = c.ramp((0.16, 0.38, 0.16), (0.07, 0.2, 0.09), 0, c.horizon)
    c.lay("forest", c.ridge(0.15 * c.height, 0.09 * c.height, 11), green, leaves)
    for x in c.r.uniform(0, c.width, int(c.r.integers(4, 9))):
        a, b = int(x), int(x + c.width * c.r.uniform(0.015, 0.045)) + 1
        c.rgb[int(0.3 * c.height) :, a:b] = np.array((0.3, 0.21, 0.14)) * c.r.uniform(0.7, 1.3)
    c.ground("grass", c.ridge(c.horizon, 0.02 * c.height, 3), (0.3, 0.36, 0.16), 0.3)


def _desert(c: _Canvas) -> None:
    c.sky()
    c.far(0.05, 0.09, 3, (0.72, 0.5, 0.38), (0.85, 0.64, 0.45))
    c.ground("sand", c.ridge(c.horizon + 0.02 * c.height, 0.04 * c.height, 2), (0.92, 0.7, 0.42), 0.08)
    below = (c.rows - c.horizon).clip(0)
    c.rgb *= (1 + 0.05 * np.sin(below**0.8 * 2 + 3 * c.noise(5, 4)) * (below > 0))[..., None]


def _night(c: _Canvas) -> None:
    c.rgb[:] = c.ramp((0.02, 0.03, 0.12), (0.16, 0.14, 0.34), 0, c.horizon)
    c.rgb[c.r.random((c.height, c.width), np.float32) > 0.996] += c.r.uniform(0.3, 0.8)
    x, y = c.r.uniform(0.1, 0.9) * c.width, c.r.uniform(0.08, 0.3) * c.height
    moon = c.r.uniform(0.05, 0.09) * c.height
    c.blend(np.clip(moon - np.hypot(c.columns - x, c.rows - y) + 0.5, 0, 1), (0.95, 0.93, 0.8))
    c.houses(0.35, (0.95, 0.8, 0.4))
    c.ground("grass", c.ridge(c.horizon, 0.02 * c.height, 2), (0.1, 0.17, 0.13), 0.25)


def _room(c: _Canvas) -> None:
    paper = c.r.uniform(0.45, 0.9, 3)
    stripe = 2 * np.pi / c.r.uniform(0.07, 0.2) / c.height
    band = 0.06 * np.sign(np.sin(c.columns * stripe)) * (c.r.random() < 0.6)
    c.rgb[:] = 0
    c.lay("wall", -1, c.ramp(0.85 * paper, paper, 0, c.horizon), 1 + band + 0.02 * c.noise(20))
    wood = np.array((0.62, 0.42, 0.26)) * c.r.uniform(0.6, 1.2)
    plank = (c.columns - c.width / 2) / (0.25 + (c.rows - c.horizon).clip(0) / c.height) / (0.14 * c.height)
    gap = np.abs(plank % 1 - 0.5) > 0.46
    shade = 1 + 0.12 * np.sin(np.floor(plank) * 37) + 0.06 * c.noise(30, 0.3) - 0.3 * gap
    c.lay("floor", c.horizon, c.ramp(0.7 * wood, wood, c.horizon, c.height), shade)
    c.rgb[int(c.horizon) - max(2, c.height // 50) : int(c.horizon)] = 0.94  # skirting board


def _snow(c: _Canvas) -> None:
    c.sky()
    c.far(0.1, 0.14, 4, (0.93, 0.95, 0.99), (0.48, 0.55, 0.68))
    c.ground("snow", c.ridge(c.horizon, 0.03 * c.height, 2), (0.95, 0.97, 1.0), 0.05)
    c.rgb[c.r.random((c.height, c.width), np.float32) > 0.995] = 0.98  # flakes


def _city(c: _Canvas) -> None:
    c.sky()
    c.houses(1.0, (0.72, 0.82, 0.9))
    c.ground("road", c.horizon, (0.42, 0.42, 0.45), 0.07)
    middle = c.horizon + 0.45 * (c.height - c.horizon)
    dashes = c.columns % (0.16 * c.width) < 0.09 * c.width
    c.rgb[(np.abs(c.rows - middle) < 0.012 * c.height) & dashes] = 0.9


PLACES: dict[str, Callable[[_Canvas], None]] = {
    "meadow": _meadow, "beach": _beach, "forest": _forest, "desert": _desert, "night": _night, "room": _room,
    "snow": _snow, "city": _city,
}  # fmt: skip
