"""Short videos of the toy world, whose label is a motion that no single frame tells.

Each shows individuals from a small pool, so that the same one comes back in other clips, while the view changes: it
sways, turns a little away, comes nearer, the light goes up and down, the camera pans, and things pass behind a post.
Where a thing starts, how it is turned and how large it is say nothing about the label.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from pipelines.toy_captions import zipf
from pipelines.toy_objects import SHAPES, TEXTURES, individual, paint
from pipelines.toy_places import PLACES, backdrop
from pipelines.toy_world import box_of, generator

MOTIONS = ("left", "right", "rise", "fall", "grow", "shrink", "spin", "bounce")
POOL = 6  # individuals of each shape, over all clips
FRAMES_PER_SECOND = 24
GROUP = 12  # frames from one key frame to the next
_DRAWN = 1.1  # the size at which a thing is drawn once, to be scaled and turned in every frame


@dataclass
class _Track:
    name: str
    individual: str
    sprite: Image.Image
    origin: tuple[float, float]
    path: NDArray[np.float64]  # (frames, 5): x, y, scale, angle, squeeze
    boxes: list[list[int] | None] = field(default_factory=list)
    visible: list[float] = field(default_factory=list)


def clip(seed: int, index: int, side: int, frames: int) -> tuple[str, bytes, dict[str, object]]:
    """Video number `index`: label, H.264 mp4 bytes, and the truth.

    side: height in pixels; the width is 4/3 of it, and both are rounded down to even numbers. The truth holds per track its
    class, individual, and per frame the box xyxy (x1, y1 exclusive; null when nothing of it is in view) and which
    share of what is inside the frame is not covered. Track 0 makes the labelled motion.
    """
    r = generator(seed, "clip", index)
    label = MOTIONS[index % len(MOTIONS)]
    height, width = side // 2 * 2, side * 4 // 3 // 2 * 2
    scenery = backdrop(r, list(PLACES)[int(r.integers(len(PLACES)))], round(1.5 * width), height)
    world = Image.fromarray((np.clip(scenery.rgb * scenery.gain, 0, 1) * 255).astype(np.uint8))
    tracks = []
    for number in range(int(r.integers(1, 4))):
        name = list(SHAPES)[zipf(r, len(SHAPES), 0.8)]
        which = int(r.integers(POOL))
        own = generator(seed, f"individual/{name}", which)
        look = individual(own, name, TEXTURES[int(own.integers(len(TEXTURES)))])
        size = height * (0.27 if number == 0 else 0.17)
        cutout = paint(look, size * _DRAWN, mirrored=bool(r.random() < 0.5), light=scenery.light)
        sprite = np.dstack([np.clip(cutout.rgb * scenery.gain, 0, 1), cutout.alpha])
        path = _path(r, label if number == 0 else "", frames, width, height)
        tracks.append(
            _Track(name, f"{name}-{which}", Image.fromarray((sprite * 255).astype(np.uint8)), cutout.origin, path)
        )
    post = (r.uniform(0.35, 0.65) * width, r.uniform(0.03, 0.06) * width) if r.random() < 0.4 else None
    pan = np.linspace(-1, 1, frames) * r.uniform(-0.08, 0.08) * width
    lamp = 1 + 0.18 * np.sin(np.linspace(0, 2 * np.pi * r.uniform(0.3, 1.0), frames) + r.uniform(0, 6))

    images = []
    for f in range(frames):
        start = round(0.25 * width + float(pan[f]))
        shift = start - 0.25 * width  # whole pixels, so that things stand still against the ground
        frame = world.crop((start, 0, start + width, height))
        layers = [_warp(track, f, shift, width, height) for track in tracks]
        for layer in reversed(layers):  # track 0 is in front of the others
            frame.paste(layer, (0, 0), layer)
        covered = np.zeros((height, width), bool)
        if post:  # and a post in front of all
            x0, x1 = (min(max(0, round(post[0] - shift + side * post[1])), width) for side in (-1, 1))
            frame.paste((74, 58, 46), (x0, 0, x1, height))
            covered[:, x0:x1] = True
        for track, layer in zip(tracks, layers, strict=True):
            mask = np.asarray(layer.getchannel("A")) >= 128
            seen = mask & ~covered
            track.visible.append(round(int(seen.sum()) / max(1, int(mask.sum())), 3))
            track.boxes.append(list(box_of(seen)) if seen.any() else None)
            covered |= mask
        images.append(np.asarray(frame.point([min(255, int(value * lamp[f])) for value in range(256)] * 3)))
    truth: dict[str, object] = {
        "label": label, "fps": FRAMES_PER_SECOND, "frames": frames, "width": width, "height": height,
        "tracks": [
            {"id": i, "class": t.name, "individual": t.individual, "boxes": t.boxes, "visible": t.visible}
            for i, t in enumerate(tracks)
        ],
    }  # fmt: skip
    return label, encode_mp4(images), truth


def _path(r: Generator, motion: str, frames: int, width: int, height: int) -> NDArray[np.float64]:
    """Where a thing is over time: (frames, 5) of x, y, scale, angle (radians), squeeze. Without a motion it drifts."""
    t = np.linspace(0, 1, frames)
    far = r.uniform(0.36, 0.5)
    x, y = r.uniform(0.25, 0.75) * width + 0 * t, r.uniform(0.4, 0.65) * height + 0 * t
    scale = r.uniform(0.6, 1.2) * (1 + 0.07 * np.sin(2 * np.pi * r.uniform(0.4, 1.2) * t + r.uniform(0, 6)))
    # one in three is turned by any angle, or a tilted thing would give `spin` away
    angle = (r.uniform(-np.pi, np.pi) if r.random() < 1 / 3 or motion == "spin" else r.normal(0, 0.2)) + 0.14 * np.sin(
        2 * np.pi * r.uniform(0.4, 1.2) * t + r.uniform(0, 6)
    )
    squeeze = 1 - 0.25 * np.sin(np.pi * r.uniform(0.4, 1.5) * t + r.uniform(0, 3)) ** 2
    if motion in ("left", "right"):
        x = r.uniform(0.4, 0.6) * width + (t - 0.5) * far * width * (1 if motion == "right" else -1)
    elif motion in ("rise", "fall"):
        y = r.uniform(0.45, 0.55) * height + (t - 0.5) * far * height * (1 if motion == "fall" else -1)
    elif motion in ("grow", "shrink"):
        scale = 0.55 * (1.4 / 0.55) ** (t if motion == "grow" else 1 - t)
    elif motion == "spin":
        angle = angle + (1 if r.random() < 0.5 else -1) * 2 * np.pi * r.uniform(0.8, 1.4) * t
    elif motion == "bounce":
        y = y - 0.22 * height * np.abs(np.sin(np.pi * (3 * t + r.random()))) + 0.1 * height
    else:
        x, y = x + r.uniform(-0.1, 0.1) * width * t, y + r.uniform(-0.05, 0.05) * height * t
    return np.stack([x, y, scale, angle, squeeze], 1)


def _warp(track: _Track, frame: int, shift: float, width: int, height: int) -> Image.Image:
    """The thing as it stands in one frame: RGBA (height, width)."""
    x, y, scale, angle, squeeze = track.path[frame].tolist()
    c, s, k = float(np.cos(angle)), float(np.sin(angle)), _DRAWN / scale
    a, b, d, e = k * c / squeeze, k * s / squeeze, -k * s, k * c
    left, top = x - shift, y
    matrix = (a, b, track.origin[0] - a * left - b * top, d, e, track.origin[1] - d * left - e * top)
    return track.sprite.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def encode_mp4(images: Sequence[NDArray[np.uint8]]) -> bytes:
    """H.264 in mp4 of images (h, w, 3), even sizes: closed groups of 12 frames, no B-frames, no dates.

    The bytes depend on the images alone. So there is one encoder thread, else the number of cores would count; and no
    macroblock tree, which reads memory that it has not set (x264 core 165, its assembly): about 1 clip in 200 differed.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        stream.thread_count = 1
        stream.options = {
            "preset": "veryfast", "crf": "23", "g": str(GROUP), "keyint_min": str(GROUP), "sc_threshold": "0", "bf": "0",
            "threads": "1", "x264-params": "open-gop=0:mbtree=0",
        }  # fmt: skip
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    return file.getvalue()
