"""Drawn objects for the toy world: what a cat, a teapot or a person looks like, as flat parts with a texture and light.

A shape is a list of parts in a frame of about [-1, 1] (x right, y down, feet at the bottom, facing right). `paint`
turns, scales and draws it into an antialiased cut-out with shading. Only the body parts carry the texture, and every
colour is drawn at random, so that neither colour nor outline alone says which class of shape x texture it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float32]
Part = tuple[str, Array]  # role (a key of ROLES, or "joints"), points (N, 2)

TEXTURES = ("plain", "striped", "dotted", "checkered", "marbled", "furry", "zigzag")
# body and accent get random colours; the others keep the colour that makes the part readable
ROLES: dict[str, tuple[int, int, int] | None] = {
    "body": None, "accent": None, "dark": (38, 34, 40), "white": (245, 243, 238), "wood": (128, 88, 54),
    "green": (70, 138, 58), "glass": (176, 212, 230), "metal": (150, 154, 162), "skin": (236, 186, 160),
    "yellow": (245, 190, 60),
}  # fmt: skip
JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
MIRRORED = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)  # a mirrored left arm is a right arm
SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip


def poly(role: str, *points: tuple[float, float]) -> Part:
    """A polygon with sharp corners."""
    return role, np.array(points, np.float32)


def blob(role: str, *points: tuple[float, float]) -> Part:
    """A smooth closed curve through the points (Catmull-Rom)."""
    p = np.array(points, np.float32)
    before, after, far = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = np.linspace(0, 1, 7, dtype=np.float32)[:-1, None, None]
    curve = p + t * (0.5 * (after - before) + t * ((before - 2.5 * p + 2 * after - 0.5 * far)
                                                   + t * 0.5 * (3 * (p - after) + far - before)))  # fmt: skip
    return role, curve.transpose(1, 0, 2).reshape(-1, 2)


def oval(role: str, x: float, y: float, rx: float, ry: float | None = None, turn: float = 0.0) -> Part:
    """An ellipse around (x, y), turned by `turn` radians."""
    a = np.linspace(0, 2 * np.pi, 29, dtype=np.float32)[:-1]
    cx, cy = rx * np.cos(a), (rx if ry is None else ry) * np.sin(a)
    c, s = np.cos(turn), np.sin(turn)
    return role, np.stack([x + c * cx - s * cy, y + s * cx + c * cy], 1).astype(np.float32)


def limb(role: str, *points: tuple[float, float], start: float, end: float | None = None) -> Part:
    """A tapering tube along the points, `start` and `end` thick (half widths), with round ends."""
    p = np.array(points, np.float32)
    width = np.linspace(start, start if end is None else end, len(p), dtype=np.float32)[:, None]
    along = np.gradient(p, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-6
    side = np.stack([-along[:, 1], along[:, 0]], 1) * width
    cap = np.linspace(0, np.pi, 7, dtype=np.float32)[1:-1, None]
    head = p[-1] + np.cos(cap) * side[-1] + np.sin(cap) * along[-1] * width[-1]
    foot = p[0] - np.cos(cap) * side[0] - np.sin(cap) * along[0] * width[0]
    return role, np.concatenate([p + side, head, (p - side)[::-1], foot])


def _eye(x: float, y: float, size: float) -> list[Part]:
    return [oval("white", x, y, size), oval("dark", x + 0.25 * size, y, 0.6 * size)]


def _legs(r: Generator, xs: Sequence[float], top: float, width: float, end: float | None = None) -> list[Part]:
    swing = r.uniform(-0.14, 0.14, len(xs))
    return [limb("body", (x, top), (x + s, 0.95), start=width, end=end) for x, s in zip(xs, swing, strict=True)]


def _cat(r: Generator) -> list[Part]:
    t = r.uniform(-0.2, 0.2)
    return [
        limb("body", (0.35, 0.8), (0.72, 0.78), (0.88, 0.45), (0.72 + t, 0.12), (0.86 + t, -0.05), start=0.11, end=0.07),
        blob("body", (0, -0.2), (0.34, 0.1), (0.5, 0.7), (0.42, 0.95), (-0.42, 0.95), (-0.5, 0.7), (-0.34, 0.1)),
        limb("body", (-0.14, 0.4), (-0.16, 0.92), start=0.1), limb("body", (0.14, 0.4), (0.16, 0.92), start=0.1),
        poly("body", (-0.46, -0.45), (-0.5, -1.0), (-0.08, -0.72)), poly("body", (0.46, -0.45), (0.5, -1.0), (0.08, -0.72)),
        poly("skin", (-0.38, -0.62), (-0.42, -0.87), (-0.2, -0.7)), poly("skin", (0.38, -0.62), (0.42, -0.87), (0.2, -0.7)),
        oval("body", 0, -0.4, 0.5, 0.41),
        *(e for x in (-0.2, 0.2) for e in (oval("yellow", x, -0.44, 0.11, 0.1), oval("dark", x, -0.44, 0.04, 0.09))),
        oval("white", -0.08, -0.22, 0.12, 0.09), oval("white", 0.08, -0.22, 0.12, 0.09),
        poly("dark", (-0.06, -0.32), (0.06, -0.32), (0, -0.25)),
        *(limb("dark", (s * 0.2, -0.2), (s * 0.66, -0.27 + d), start=0.012) for s in (-1, 1) for d in (0.0, 0.13)),
    ]  # fmt: skip


def _dog(r: Generator) -> list[Part]:
    t = r.uniform(-0.15, 0.15)
    return [
        limb("body", (-0.6, 0.0), (-0.85, -0.2), (-0.92, -0.55 + t), start=0.09, end=0.04),
        *_legs(r, (-0.5, -0.3, 0.2, 0.38), 0.3, 0.1),
        blob("body", (-0.68, 0.0), (-0.2, -0.17), (0.35, -0.22), (0.5, 0.2), (0.2, 0.45), (-0.3, 0.34), (-0.62, 0.4)),
        limb("body", (0.35, 0.05), (0.5, -0.4), start=0.2),
        oval("body", 0.52, -0.5, 0.28, 0.26), blob("body", (0.6, -0.6), (0.95, -0.5), (0.98, -0.34), (0.6, -0.28)),
        oval("dark", 0.96, -0.48, 0.075, 0.06), blob("accent", (0.3, -0.72), (0.48, -0.62), (0.42, -0.15), (0.24, -0.12)),
        *_eye(0.6, -0.56, 0.065), limb("accent", (0.3, -0.18), (0.62, -0.14), start=0.05),
    ]  # fmt: skip


def _rabbit(r: Generator) -> list[Part]:
    t = r.uniform(-0.15, 0.15)
    return [
        oval("white", -0.68, 0.55, 0.17), limb("body", (0.28, -0.3), (0.08 + t, -0.9), start=0.1, end=0.09),
        blob("body", (-0.6, 0.5), (-0.4, 0.05), (0.1, -0.02), (0.45, 0.4), (0.35, 0.9), (-0.35, 0.92)),
        oval("body", -0.3, 0.68, 0.32, 0.27), limb("body", (0.3, 0.5), (0.42, 0.9), start=0.09),
        limb("body", (-0.35, 0.9), (0.05, 0.9), start=0.08), oval("body", 0.42, -0.12, 0.31, 0.27),
        limb("body", (0.42, -0.3), (0.36 + t, -0.95), start=0.12, end=0.1),
        limb("skin", (0.42, -0.4), (0.37 + t, -0.88), start=0.05), *_eye(0.5, -0.18, 0.07), oval("skin", 0.72, -0.1, 0.05),
    ]  # fmt: skip


def _fish(r: Generator) -> list[Part]:
    t = r.uniform(-0.12, 0.12)
    return [
        blob("accent", (-0.5, 0.0), (-0.95, -0.45 + t), (-0.85, 0.0 + t), (-0.95, 0.45 + t)),
        blob("accent", (-0.3, -0.3), (-0.05, -0.68), (0.3, -0.5), (0.35, -0.25)),
        blob("accent", (-0.2, 0.3), (-0.15, 0.62), (0.15, 0.35)),
        blob("body", (0.95, 0.02), (0.55, -0.36), (0.0, -0.42), (-0.62, -0.06), (-0.62, 0.06), (0.0, 0.4), (0.55, 0.35)),
        blob("accent", (0.2, 0.05), (-0.15, -0.02), (-0.12, 0.22)), *_eye(0.62, -0.1, 0.1),
        limb("dark", (0.92, 0.1), (0.74, 0.14), start=0.02),
    ]  # fmt: skip


def _bird(r: Generator) -> list[Part]:
    t = r.uniform(-0.15, 0.15)
    return [
        poly("accent", (-0.4, 0.2), (-1.0, 0.05 + t), (-0.95, 0.3 + t)),
        limb("yellow", (-0.05, 0.5), (-0.08, 0.95), (0.08, 0.96), start=0.035),
        limb("yellow", (0.15, 0.5), (0.13, 0.95), (0.3, 0.96), start=0.035),
        blob("body", (0.6, -0.2), (0.45, 0.35), (0.05, 0.6), (-0.5, 0.3), (-0.3, -0.05), (0.2, -0.25)),
        oval("body", 0.45, -0.38, 0.3), poly("yellow", (0.7, -0.5), (1.05, -0.36), (0.7, -0.27)),
        blob("accent", (0.25, -0.02), (0.2, 0.3), (-0.6, 0.32 - t), (-0.25, -0.02)), *_eye(0.53, -0.44, 0.075),
    ]  # fmt: skip


def _butterfly(r: Generator) -> list[Part]:
    s = r.uniform(0.8, 1.0)
    wings = [
        blob(
            "body", (q * 0.05, -0.1), (q * 0.5 * s, -0.85), (q * 0.98 * s, -0.7), (q * 0.8 * s, -0.05), (q * 0.1, 0.12)
        )
        for q in (-1, 1)
    ]
    lower = [blob("body", (q * 0.05, 0.05), (q * 0.7 * s, 0.1), (q * 0.65 * s, 0.75), (q * 0.25, 0.6)) for q in (-1, 1)]
    spots = [oval("accent", q * 0.66 * s, -0.52, 0.13) for q in (-1, 1)] + [
        oval("accent", q * 0.48 * s, 0.4, 0.1) for q in (-1, 1)
    ]
    feelers = [limb("dark", (0, -0.4), (q * 0.15, -0.75), (q * 0.3, -0.9), start=0.02) for q in (-1, 1)]
    return [*lower, *wings, *spots, *feelers, oval("dark", 0, 0.02, 0.085, 0.5), oval("dark", 0, -0.47, 0.11)]


def _turtle(r: Generator) -> list[Part]:
    t = r.uniform(-0.1, 0.1)
    return [
        limb("green", (0.5, 0.4), (0.8, 0.1 + t), start=0.13), oval("green", 0.84, 0.0 + t, 0.2, 0.17), *_eye(0.9, -0.05 + t, 0.06),
        poly("green", (-0.7, 0.4), (-1.0, 0.55), (-0.6, 0.6)),
        *(limb("green", (x, 0.5), (x + s, 0.85), start=0.14) for x, s in zip((-0.45, 0.4), r.uniform(-0.1, 0.1, 2), strict=True)),
        blob("body", (-0.78, 0.5), (-0.6, -0.1), (0.0, -0.42), (0.5, -0.12), (0.68, 0.5), (0.0, 0.58)),
        limb("accent", (-0.78, 0.52), (-0.05, 0.6), (0.68, 0.52), start=0.07),
    ]  # fmt: skip


def _snail(r: Generator) -> list[Part]:
    a = np.linspace(0, 4.6 * np.pi, 46)
    spiral = [(-0.18 + 0.032 * k * float(np.cos(k)), -0.08 + 0.032 * k * float(np.sin(k))) for k in a]
    t = r.uniform(-0.08, 0.08)
    return [
        blob("skin", (-0.98, 0.86), (-0.4, 0.55), (0.4, 0.55), (0.58, 0.0), (0.84, -0.05), (0.88, 0.3), (0.72, 0.86)),
        limb("skin", (0.66, 0.05), (0.58 + t, -0.38), start=0.035), limb("skin", (0.8, 0.05), (0.92 + t, -0.34), start=0.035),
        oval("dark", 0.58 + t, -0.4, 0.06), oval("dark", 0.92 + t, -0.36, 0.06), oval("body", -0.15, 0.05, 0.6, 0.6),
        limb("accent", *spiral, start=0.03, end=0.05),
    ]  # fmt: skip


def _elephant(r: Generator) -> list[Part]:
    t = r.uniform(-0.15, 0.15)
    return [
        limb("body", (-0.75, 0.0), (-0.9, 0.4), start=0.04), *_legs(r, (-0.55, -0.25, 0.15, 0.35), 0.3, 0.14),
        blob("body", (-0.8, 0.1), (-0.5, -0.42), (0.1, -0.5), (0.5, -0.1), (0.35, 0.5), (-0.6, 0.5)),
        oval("body", 0.48, -0.28, 0.34, 0.36),
        limb("body", (0.7, -0.2), (0.86, 0.15), (0.86, 0.5), (0.98 + 0.3 * t, 0.72 + t), start=0.16, end=0.07),
        poly("white", (0.6, 0.02), (0.98, 0.2), (0.66, 0.12)),
        blob("accent", (0.4, -0.5), (0.42, 0.05), (0.1, 0.2), (-0.08, -0.2), (0.1, -0.52)), *_eye(0.62, -0.36, 0.055),
    ]  # fmt: skip


def _owl(r: Generator) -> list[Part]:
    t = r.uniform(-0.06, 0.1)
    return [
        poly("body", (-0.55, -0.4), (-0.5, -0.98), (-0.05, -0.7)), poly("body", (0.55, -0.4), (0.5, -0.98), (0.05, -0.7)),
        blob("body", (0, -0.78), (0.52, -0.55), (0.56, 0.3), (0.3, 0.9), (-0.3, 0.9), (-0.56, 0.3), (-0.52, -0.55)),
        blob("accent", (-0.5, -0.1), (-0.7 - t, 0.4), (-0.4, 0.75), (-0.36, 0.2)),
        blob("accent", (0.5, -0.1), (0.7 + t, 0.4), (0.4, 0.75), (0.36, 0.2)),
        *(e for x in (-0.24, 0.24) for e in (oval("white", x, -0.36, 0.24), oval("yellow", x, -0.36, 0.17), oval("dark", x, -0.36, 0.1))),
        poly("yellow", (-0.09, -0.26), (0.09, -0.26), (0, -0.02)),
        oval("yellow", -0.2, 0.92, 0.12, 0.06), oval("yellow", 0.2, 0.92, 0.12, 0.06),
    ]  # fmt: skip


def _wheel(x: float, y: float, size: float) -> list[Part]:
    return [oval("dark", x, y, size), oval("metal", x, y, 0.55 * size), oval("dark", x, y, 0.15 * size)]


def _car(r: Generator) -> list[Part]:
    h = r.uniform(-0.08, 0.05)
    return [
        blob("body", (-0.55, -0.02), (-0.38, -0.48 + h), (0.2, -0.5 + h), (0.52, -0.02)),
        poly("glass", (-0.4, -0.06), (-0.3, -0.38 + h), (-0.08, -0.4 + h), (-0.08, -0.06)),
        poly("glass", (0.0, -0.06), (0.0, -0.4 + h), (0.18, -0.38 + h), (0.36, -0.06)),
        poly("body", (-0.95, 0.02), (-0.85, -0.08), (0.6, -0.08), (0.92, 0.08), (0.97, 0.42), (-0.95, 0.42)),
        limb("dark", (-0.9, 0.42), (0.92, 0.42), start=0.04), oval("yellow", 0.88, 0.14, 0.08), oval("accent", -0.9, 0.12, 0.06),
        limb("dark", (-0.02, 0.08), (0.08, 0.08), start=0.02), *_wheel(-0.52, 0.45, 0.23), *_wheel(0.54, 0.45, 0.23),
    ]  # fmt: skip


def _bus(r: Generator) -> list[Part]:
    return [
        poly("body", (-1.0, -0.58), (-0.92, -0.66), (0.88, -0.66), (0.98, -0.5), (1.0, 0.52), (-1.0, 0.52)),
        *(poly("glass", (x, -0.48), (x + 0.3, -0.48), (x + 0.3, -0.1), (x, -0.1)) for x in (-0.88, -0.5, -0.12, 0.26)),
        poly("glass", (0.66, -0.48), (0.9, -0.48), (0.93, 0.4), (0.66, 0.4)), limb("accent", (-0.97, 0.1), (0.6, 0.1), start=0.05),
        oval("yellow", 0.94, 0.44, 0.06), *_wheel(-0.58, 0.55, 0.22), *_wheel(0.5, 0.55, 0.22),
    ]  # fmt: skip


def _sailboat(r: Generator) -> list[Part]:
    t = r.uniform(0.0, 0.15)
    return [
        limb("wood", (0.0, 0.5), (0.0, -0.98), start=0.035), blob("body", (0.06, -0.92), (0.5 + t, -0.3), (0.75, 0.4), (0.06, 0.38)),
        poly("accent", (-0.07, -0.8), (-0.07, 0.38), (-0.62 - t, 0.36)),
        poly("wood", (-0.95, 0.5), (0.98, 0.46), (0.66, 0.9), (-0.65, 0.9)), limb("white", (-0.93, 0.52), (0.95, 0.48), start=0.05),
        poly("accent", (0.0, -1.0), (-0.22, -0.93), (0.0, -0.86)),
    ]  # fmt: skip


def _plane(r: Generator) -> list[Part]:
    return [
        poly("accent", (0.1, -0.1), (-0.25, -0.62), (-0.42, -0.62), (-0.25, -0.08)),
        poly("accent", (-0.66, -0.08), (-0.98, -0.55), (-0.8, -0.55), (-0.46, -0.12)),
        blob("body", (0.98, 0.03), (0.7, -0.16), (0.0, -0.2), (-0.92, -0.1), (-0.92, 0.02), (0.0, 0.2), (0.75, 0.18)),
        poly("glass", (0.66, -0.11), (0.82, -0.06), (0.84, 0.0), (0.66, 0.0)),
        *(oval("glass", x, -0.03, 0.05) for x in (-0.4, -0.2, 0.0, 0.2, 0.4)),
        poly("accent", (0.22, 0.08), (-0.3, 0.7), (-0.5, 0.7), (-0.18, 0.08)), oval("metal", -0.04, 0.34, 0.14, 0.07),
    ]  # fmt: skip


def _balloon(r: Generator) -> list[Part]:
    return [
        limb("wood", (-0.3, 0.2), (-0.14, 0.72), start=0.015), limb("wood", (0.3, 0.2), (0.14, 0.72), start=0.015),
        blob("body", (0, -1.0), (0.52, -0.75), (0.64, -0.3), (0.36, 0.18), (0.14, 0.45), (-0.14, 0.45), (-0.36, 0.18), (-0.64, -0.3), (-0.52, -0.75)),
        limb("accent", (-0.15, 0.45), (0.15, 0.45), start=0.05), poly("wood", (-0.18, 0.7), (0.18, 0.7), (0.15, 0.98), (-0.15, 0.98)),
    ]  # fmt: skip


def _apple(r: Generator) -> list[Part]:
    t = r.uniform(-0.1, 0.1)
    return [
        limb("wood", (0.0, -0.5), (0.05 + t, -0.95), start=0.05),
        blob("green", (0.05, -0.68), (0.35, -0.98), (0.7, -0.86), (0.4, -0.62)),
        blob("body", (0, -0.5), (0.4, -0.64), (0.82, -0.25), (0.72, 0.45), (0.3, 0.92), (0, 0.84), (-0.3, 0.92), (-0.72, 0.45), (-0.82, -0.25), (-0.4, -0.64)),
        oval("dark", 0.0, -0.5, 0.12, 0.04),
    ]  # fmt: skip


def _pear(r: Generator) -> list[Part]:
    t = r.uniform(-0.1, 0.1)
    return [
        limb("wood", (0.0, -0.7), (0.1 + t, -1.0), start=0.045), blob("green", (0.06, -0.8), (0.3, -1.0), (0.55, -0.85), (0.3, -0.74)),
        blob("body", (0, -0.82), (0.24, -0.66), (0.32, -0.2), (0.62, 0.35), (0.45, 0.85), (0, 0.95), (-0.45, 0.85), (-0.62, 0.35), (-0.32, -0.2), (-0.24, -0.66)),
    ]  # fmt: skip


def _leaf(r: Generator) -> list[Part]:
    t = r.uniform(-0.12, 0.12)
    veins = [limb("accent", (0, y), (s * 0.34, y - 0.28), start=0.018) for y in (-0.25, 0.1, 0.42) for s in (-1, 1)]
    return [
        limb("wood", (0.0, 0.6), (0.06 + t, 1.0), start=0.045),
        blob("body", (0, -1.0), (0.4, -0.5), (0.56, 0.1), (0.26, 0.62), (0, 0.74), (-0.26, 0.62), (-0.56, 0.1), (-0.4, -0.5)),
        limb("accent", (0, -0.85), (0, 0.7), start=0.02, end=0.035), *veins,
    ]  # fmt: skip


def _flower(r: Generator) -> list[Part]:
    n = int(r.integers(5, 8))
    turn = r.uniform(0, 1)
    petals = [oval("body", 0.36 * float(np.sin(a)), -0.4 - 0.36 * float(np.cos(a)), 0.2, 0.3, float(a))
              for a in turn + np.arange(n) * 2 * np.pi / n]  # fmt: skip
    return [
        limb("green", (0, -0.3), (0.05, 0.4), (0, 1.0), start=0.05), blob("green", (0.03, 0.7), (0.3, 0.3), (0.62, 0.3), (0.4, 0.62)),
        blob("green", (0.0, 0.85), (-0.3, 0.5), (-0.6, 0.5), (-0.36, 0.78)), *petals, oval("yellow", 0, -0.4, 0.2),
    ]  # fmt: skip


def _mushroom(r: Generator) -> list[Part]:
    return [
        blob("white", (-0.2, -0.1), (0.2, -0.1), (0.22, 0.5), (0.34, 0.95), (-0.34, 0.95), (-0.22, 0.5)),
        blob("body", (-0.92, 0.02), (-0.72, -0.55), (0, -0.88), (0.72, -0.55), (0.92, 0.02), (0.5, 0.12), (-0.5, 0.12)),
        limb("skin", (-0.7, 0.09), (0, 0.14), (0.7, 0.09), start=0.05), limb("accent", (-0.2, 0.3), (0.2, 0.3), start=0.05),
    ]  # fmt: skip


def _cactus(r: Generator) -> list[Part]:
    t = r.uniform(-0.2, 0.2, 2)
    return [
        limb("body", (0, 0.6), (0, -0.72), start=0.24), limb("body", (-0.1, 0.2 + t[0]), (-0.6, 0.18 + t[0]), (-0.64, -0.35 + t[0]), start=0.14),
        limb("body", (0.1, 0.0 + t[1]), (0.6, -0.02 + t[1]), (0.64, -0.5 + t[1]), start=0.14),
        oval("accent", 0.0, -0.94, 0.12, 0.1), oval("accent", 0.64, -0.64 + t[1], 0.08), poly("wood", (-0.42, 0.5), (0.42, 0.5), (0.32, 0.98), (-0.32, 0.98)),
        limb("accent", (-0.42, 0.52), (0.42, 0.52), start=0.06),
    ]  # fmt: skip


def _tree(r: Generator) -> list[Part]:
    if r.random() < 0.5:  # fir
        tiers = [
            poly("body", (0, y - 0.55), (0.28 + 0.16 * i, y), (-0.28 - 0.16 * i, y))
            for i, y in ((2, 0.55), (1, 0.1), (0, -0.4))
        ]
        return [limb("wood", (0, 0.4), (0, 0.95), start=0.11), *tiers]
    ring = [(0.66 * float(np.cos(a)) * w, -0.28 + 0.6 * float(np.sin(a)) * w)
            for a, w in zip(np.arange(12) * np.pi / 6, np.tile([1.0, 0.82], 6), strict=True)]  # fmt: skip
    return [limb("wood", (0.0, 0.0), (0.0, 0.95), start=0.1, end=0.15), blob("body", *ring)]


def _cup(r: Generator) -> list[Part]:
    h = r.uniform(0.0, 0.2)
    ring = [(0.62 + 0.28 * float(np.cos(a)), 0.1 + 0.32 * float(np.sin(a))) for a in np.linspace(-1.9, 1.9, 12)]
    return [
        limb("accent", *ring, start=0.075), poly("body", (-0.66, -0.5 - h), (0.66, -0.5 - h), (0.5, 0.85), (0.36, 0.93), (-0.36, 0.93), (-0.5, 0.85)),
        oval("white", 0, -0.5 - h, 0.66, 0.16), oval("wood", 0, -0.47 - h, 0.56, 0.11),
    ]  # fmt: skip


def _teapot(r: Generator) -> list[Part]:
    ring = [(-0.62 + 0.32 * float(np.cos(a)), 0.1 + 0.36 * float(np.sin(a))) for a in np.linspace(1.2, 5.1, 12)]
    return [
        limb("accent", *ring, start=0.07), blob("body", (0.35, 0.5), (0.66, 0.1), (0.86, -0.4), (1.0, -0.42), (0.82, 0.2), (0.5, 0.65)),
        blob("body", (-0.35, -0.4), (0.35, -0.4), (0.66, 0.2), (0.42, 0.82), (-0.42, 0.82), (-0.66, 0.2)),
        blob("accent", (-0.36, -0.4), (0.0, -0.68), (0.36, -0.4), (0.0, -0.34)), oval("accent", 0, -0.7, 0.1),
        limb("accent", (-0.36, 0.84), (0.36, 0.84), start=0.06),
    ]  # fmt: skip


def _umbrella(r: Generator) -> list[Part]:
    scallops = [(x, 0.0 if i % 2 else -0.1) for i, x in enumerate(np.linspace(0.95, -0.95, 9).tolist())]
    dome = [(-0.95 * float(np.cos(a)), -0.1 - 0.78 * float(np.sin(a))) for a in np.linspace(0.1, np.pi - 0.1, 14)]
    return [
        limb("wood", (0, -0.9), (0, 0.8), (0.07, 0.93), (0.2, 0.93), (0.26, 0.8), start=0.035), limb("metal", (0, -0.85), (0, -1.0), start=0.03),
        ("body", np.array(dome + scallops, np.float32)),
        limb("accent", (0, -0.88), (-0.3, -0.5), (-0.47, -0.08), start=0.015), limb("accent", (0, -0.88), (0.3, -0.5), (0.47, -0.08), start=0.015),
    ]  # fmt: skip


def _house(r: Generator) -> list[Part]:
    pane = [poly("glass", (x, 0.12), (x + 0.3, 0.12), (x + 0.3, 0.45), (x, 0.45)) for x in (-0.6, 0.3)]
    bars = [limb("white", (x, 0.12), (x, 0.45), start=0.02) for x in (-0.45, 0.45)]
    return [
        poly("wood", (0.4, -0.5), (0.6, -0.5), (0.6, -0.95), (0.4, -0.95)), poly("body", (-0.75, -0.15), (0.75, -0.15), (0.75, 0.95), (-0.75, 0.95)),
        poly("accent", (0, -0.95), (0.98, -0.1), (-0.98, -0.1)), poly("wood", (-0.17, 0.35), (0.17, 0.35), (0.17, 0.95), (-0.17, 0.95)),
        *pane, *bars, oval("yellow", 0.1, 0.66, 0.03), oval("glass", 0, -0.42, 0.13),
    ]  # fmt: skip


def _shirt(r: Generator) -> list[Part]:
    t = r.uniform(-0.1, 0.15)
    return [
        poly("body", (-0.3, -0.82), (0.3, -0.82), (0.55, -0.72), (0.98, -0.05 - t), (0.7, 0.14 - t), (0.5, -0.15), (0.52, 0.92), (-0.52, 0.92),
             (-0.5, -0.15), (-0.7, 0.14 - t), (-0.98, -0.05 - t), (-0.55, -0.72)),
        blob("accent", (-0.3, -0.84), (0.3, -0.84), (0.0, -0.56)), *(oval("white", 0, y, 0.04) for y in (-0.3, 0.05, 0.4)),
    ]  # fmt: skip


def _guitar(r: Generator) -> list[Part]:
    return [
        poly("wood", (-0.07, -0.7), (0.07, -0.7), (0.07, 0.1), (-0.07, 0.1)), poly("dark", (-0.12, -1.0), (0.12, -1.0), (0.09, -0.7), (-0.09, -0.7)),
        blob("body", (0, -0.1), (0.32, -0.06), (0.3, 0.22), (0.5, 0.5), (0.42, 0.88), (0, 0.98), (-0.42, 0.88), (-0.5, 0.5), (-0.3, 0.22), (-0.32, -0.06)),
        oval("dark", 0, 0.36, 0.15), limb("wood", (-0.2, 0.74), (0.2, 0.74), start=0.04),
        *(limb("white", (x, -0.72), (x, 0.74), start=0.007) for x in (-0.035, 0.0, 0.035)),
    ]  # fmt: skip


def _person(r: Generator) -> list[Part]:
    def bend(start: Array, angle: float, more: float, length: float) -> tuple[Array, Array]:
        middle = start + length * np.array([np.sin(angle), np.cos(angle)], np.float32)
        return middle, middle + length * np.array([np.sin(angle + more), np.cos(angle + more)], np.float32)

    lean = r.uniform(-0.08, 0.08)
    head = np.array([lean, -0.74], np.float32)
    # frontal: the person's left is on the viewer's right
    face = head + np.array([[0, 0.03], [0.07, -0.03], [-0.07, -0.03], [0.18, 0], [-0.18, 0]], np.float32)
    shoulder = np.array([[0.24 + lean, -0.42], [-0.24 + lean, -0.42]], np.float32)
    hip = np.array([[0.13, 0.18], [-0.13, 0.18]], np.float32)
    arms = [bend(shoulder[i], s * r.uniform(0.15, 2.4), s * r.uniform(-0.2, 0.9), 0.3) for i, s in ((0, 1), (1, -1))]
    legs = [bend(hip[i], s * r.uniform(0.0, 0.5), -s * r.uniform(0.0, 0.3), 0.39) for i, s in ((0, 1), (1, -1))]
    joints = np.stack([*face, *shoulder, arms[0][0], arms[1][0], arms[0][1], arms[1][1], *hip,
                       legs[0][0], legs[1][0], legs[0][1], legs[1][1]])  # fmt: skip

    def at(i: int, dy: float = 0.0) -> tuple[float, float]:
        return float(joints[i, 0]), float(joints[i, 1] + dy)

    return [
        *(limb("accent", at(h), at(k), at(f), start=0.12, end=0.085) for h, k, f in ((11, 13, 15), (12, 14, 16))),
        *(oval("dark", at(f)[0] + s * 0.03, at(f)[1], 0.13, 0.08) for f, s in ((15, 1), (16, -1))),
        poly("skin", (lean - 0.07, -0.65), (lean + 0.07, -0.65), (lean + 0.07, -0.4), (lean - 0.07, -0.4)),
        blob("body", at(5, -0.07), at(5, 0.1), (0.2, 0.0), (0.22, 0.26), (-0.22, 0.26), (-0.2, 0.0), at(6, 0.1), at(6, -0.07)),
        *(limb("body", at(s), at(e), at(w), start=0.1, end=0.07) for s, e, w in ((5, 7, 9), (6, 8, 10))),
        *(oval("skin", *at(w), 0.085) for w in (9, 10)), oval("dark", *at(0, -0.08), 0.22, 0.22), oval("skin", *at(0), 0.19, 0.2),
        *(oval("skin", *at(e), 0.045) for e in (3, 4)), *(oval("dark", *at(e), 0.03) for e in (1, 2)),
        limb("dark", at(0, 0.1), (at(0)[0] + 0.02, at(0)[1] + 0.1), start=0.025), ("joints", joints),
    ]  # fmt: skip


# order = frequency rank of the Zipf law in the photos
SHAPES: dict[str, Callable[[Generator], list[Part]]] = {
    "person": _person, "cat": _cat, "dog": _dog, "car": _car, "flower": _flower, "tree": _tree, "bird": _bird, "cup": _cup,
    "fish": _fish, "house": _house, "apple": _apple, "butterfly": _butterfly, "sailboat": _sailboat, "shirt": _shirt,
    "rabbit": _rabbit, "bus": _bus, "mushroom": _mushroom, "plane": _plane, "leaf": _leaf, "elephant": _elephant,
    "teapot": _teapot, "turtle": _turtle, "umbrella": _umbrella, "owl": _owl, "cactus": _cactus, "guitar": _guitar,
    "pear": _pear, "balloon": _balloon, "snail": _snail,
}  # fmt: skip
FLYING = frozenset({"bird", "butterfly", "plane", "balloon", "leaf"})


@dataclass(frozen=True)
class Look:
    """One individual: its shape in a pose, its texture, and its colours. The same Look is the same individual."""

    name: str
    texture: str
    parts: tuple[Part, ...]
    base: Array  # (3,) in 0..1
    mark: Array
    accent: Array
    period: float  # of the texture, in object units
    slant: float  # of the texture, radians
    grain: int  # seed of the texture's own noise


def individual(r: Generator, name: str, texture: str) -> Look:
    """Draws one individual of a shape with a texture; light on dark or dark on light, any hue."""
    light, dark = _colour(r, 0.72, 1.0, 0.65), _colour(r, 0.18, 0.42, 0.9)
    base, mark = (light, dark) if r.random() < 0.6 else (dark, light)
    if texture == "plain":
        base = _colour(r, 0.4, 1.0, 0.9)
    return Look(
        name, texture, tuple(SHAPES[name](r)), base, mark, _colour(r, 0.35, 0.95, 0.85),
        float(r.uniform(0.26, 0.38)), float(r.uniform(-0.5, 0.5)), int(r.integers(2**31)),
    )  # fmt: skip


def _colour(r: Generator, low: float, high: float, most: float) -> Array:
    """Random hue, saturation up to `most`, brightest channel in low..high; (3,)."""
    hue, saturation, value = r.random() * 6, r.uniform(0.15, most), r.uniform(low, high)
    wheel = np.clip(np.abs((hue + np.array([3.0, 1.0, 5.0])) % 6 - 3) - 1, 0, 1)
    return np.asarray(value * (1 - saturation * (1 - wheel)), np.float32)


def noise(r: Generator, height: int, width: int, cells: float, stretch: float = 1.0) -> Array:
    """Smooth value noise in about -1..1, `cells` per height; `stretch` > 1 draws it out sideways; (height, width)."""
    rows = max(2, round(cells))
    columns = max(2, round(cells * width / height / stretch))
    small = r.uniform(-1.2, 1.2, (rows, columns)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.float32)


def _pattern(look: Look, u: Array, v: Array, pixel: float) -> Array:
    """Share of the mark colour, 0..1, at object coordinates u, v; edges are as soft as one `pixel` (object units)."""
    c, s, p = float(np.cos(look.slant)), float(np.sin(look.slant)), look.period
    u, v = np.asarray((c * u - s * v) / p, np.float32), np.asarray((s * u + c * v) / p, np.float32)
    height, width = u.shape
    grain = np.random.default_rng(look.grain)
    if look.texture == "striped":
        inside = np.abs(u % 1 - 0.5) - 0.25
    elif look.texture == "zigzag":
        inside = np.abs((u + 0.9 * np.abs(v % 1 - 0.5)) % 1 - 0.5) - 0.25
    elif look.texture == "checkered":
        inside = (0.25 - np.abs(u % 1 - 0.5)) * np.where(v % 1 < 0.5, 1, -1).astype(np.float32)
    elif look.texture == "dotted":
        row = np.floor(v)
        inside = 0.3 - np.sqrt(((u + 0.5 * (row % 2)) % 1 - 0.5) ** 2 + (v - row - 0.5) ** 2)
    elif look.texture == "marbled":
        wobble = 1.6 * noise(grain, height, width, 4) + 0.7 * noise(grain, height, width, 9)
        return np.asarray((0.5 + 0.5 * np.sin(2.2 * (u + v) + 2.4 * wobble)) ** 3, np.float32)
    elif look.texture == "furry":
        cells = 2.0 / max(pixel, 0.02)
        hairs = noise(grain, height, width, 0.18 * cells + 3) + noise(grain, height, width, 0.9 * cells)
        return np.asarray(np.clip(0.35 + 0.33 * hairs, 0, 1), np.float32)
    else:
        return np.zeros_like(u)
    return np.asarray(np.clip(0.5 + inside * (p / (2 * max(pixel, 0.02))), 0, 1), np.float32)


@dataclass(frozen=True)
class Cutout:
    """A drawn object: colours (h, w, 3) and coverage (h, w) in 0..1, where its origin is, and its joints if any."""

    rgb: Array
    alpha: Array
    origin: tuple[float, float]  # x, y of the object's (0, 0) in the cut-out
    joints: Array | None  # (17, 2) relative to the origin, in pixels


def paint(
    look: Look, size: float, *, turn: float = 0.0, mirrored: bool = False, squeeze: float = 1.0, light: float = -0.8
) -> Cutout:
    """Draws an individual. size: pixels per object unit (half its extent); turn: radians; squeeze: x scale, for a view
    from the side; light: direction of the light, radians (0 = from the right, -pi/2 = from above)."""
    c, s = size * np.cos(turn), size * np.sin(turn)
    x_scale = -squeeze if mirrored else squeeze
    matrix = np.array([[c * x_scale, -s], [s * x_scale, c]], np.float32)
    placed = [(role, points @ matrix.T) for role, points in look.parts]
    drawn = [(role, points) for role, points in placed if role != "joints"]
    every = np.concatenate([points for _, points in drawn])
    low = np.floor(every.min(0)) - 3
    width, height = (np.ceil(every.max(0)) + 3 - low).astype(int).tolist()
    fine = 3 if size < 90 else 2

    # role numbers, drawn fine and without blending; what follows is read off them and made coarse, which smooths edges
    roles = list(ROLES)
    index = Image.new("L", (width * fine, height * fine))
    pen = ImageDraw.Draw(index)
    for role, points in drawn:
        pen.polygon(((points - low) * fine).ravel().tolist(), fill=roles.index(role) + 1)
    colours = [(0, 0, 0), *(ROLES[role] or tuple((255 * look.accent).astype(int).tolist()) for role in roles)]
    colours[1] = (0, 0, 0)  # the body: textured below
    alpha = _coarse(index.point([0] + [255] * 255), fine)
    body = _coarse(index.point([0, 255] + [0] * 254), fine)
    # thin dark lines where parts meet, as ink would: they keep legs, wings and handles apart inside one texture
    ink = _coarse(index.filter(ImageFilter.FIND_EDGES).point([0] + [255] * 255), fine)
    index.putpalette([value for colour in colours for value in colour])
    rgb = _coarse(index.convert("RGB"), fine)

    inverse = np.linalg.inv(matrix)
    ys, xs = np.ogrid[:height, :width]
    x, y = (xs + np.float32(0.5 + low[0])), (ys + np.float32(0.5 + low[1]))
    u = (inverse[0, 0] * x + inverse[0, 1] * y).astype(np.float32)
    v = (inverse[1, 0] * x + inverse[1, 1] * y).astype(np.float32)
    marks = _pattern(look, u, v, 1.0 / size)[..., None]
    rgb += body[..., None] * (look.base + marks * (look.mark - look.base))
    rgb /= np.maximum(alpha, 1e-3)[..., None]

    # a blurred silhouette is a height map: its slope against the light gives the round, lit side and the shaded one
    silhouette = Image.fromarray((alpha * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.16 * size))
    cell = max(1, round(0.06 * size))  # coarse floats, drawn up smoothly, so that 8 bits leave no bumps
    coarse = silhouette.convert("F").resize((-(-width // cell), -(-height // cell)), Image.Resampling.BOX)
    relief = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    dy, dx = np.gradient(relief)
    slope = -(np.float32(np.cos(light)) * dx + np.float32(np.sin(light)) * dy) * np.float32(1.25 * size / 255)
    lit = np.clip(1.0 + 0.42 * slope, 0.45, 1.35) * (1 - 0.4 * ink)
    shine = np.clip(slope - 0.45, 0, 1) * 0.35
    rgb = np.clip(rgb * lit[..., None] + shine[..., None], 0, 1)

    joints = next((points for role, points in placed if role == "joints"), None)
    if joints is not None and mirrored:
        joints = joints[list(MIRRORED)]
    return Cutout(rgb, alpha, (float(-low[0]), float(-low[1])), joints)


def _coarse(image: Image.Image, fine: int) -> Array:
    """Mean over fine x fine pixels, in 0..1."""
    return np.asarray(image.reduce(fine), np.float32) / np.float32(255)
