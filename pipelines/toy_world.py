"""The toy world: objects put into places, and the three kinds of still pictures made from that.

`photo` is a captioned photo, `class_photo` one for a labelled folder, `scene` one with full COCO truth. Each is a pure
function of (seed, index), numpy and Pillow only, so any worker may make any of them, in any order.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from pipelines.toy_captions import write_caption, zipf
from pipelines.toy_objects import FLYING, JOINTS, SHAPES, SKELETON, TEXTURES, Array, Look, individual, paint
from pipelines.toy_places import PLACES, STUFF, Backdrop, backdrop

PLANTED = ("broken", "cmyk", "exif orientation 6", "zero bytes")  # what is odd about the first photos


def generator(seed: int, kind: str, index: int) -> Generator:
    """The random numbers of one item, whoever makes it and whenever."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}/{kind}/{index}".encode()).digest()[:16], "big"))


# ---- objects in a place


@dataclass(frozen=True)
class Placement:
    """Where an individual stands: centre x, y and half extent `size` in pixels, turned by `turn` radians."""

    look: Look
    x: float
    y: float
    size: float
    turn: float
    mirrored: bool
    crowd: int = 0  # > 0: one of a flock that is annotated as one


@dataclass(frozen=True)
class Thing:
    """An object as seen: its visible pixels (h, w), their box xyxy, joints (17, 3) x, y, visibility as in COCO."""

    look: Look
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    joints: NDArray[np.float64] | None
    crowd: int


@dataclass(frozen=True)
class Picture:
    """A composed picture (h, w, 3) uint8 with what is where; masks of things never overlap."""

    rgb: NDArray[np.uint8]
    stuff: NDArray[np.uint8]
    things: list[Thing]


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Tight box xyxy of a mask (h, w) that is not empty; x1, y1 exclusive."""
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def compose(r: Generator, scenery: Backdrop, placements: Sequence[Placement]) -> Picture:
    """Puts objects into a place, the later ones in front. One of which less than a quarter would show is left out."""
    height, width = scenery.stuff.shape
    taken = np.zeros((height, width), bool)
    seen = []
    for p in reversed(placements):
        squeeze = float(r.uniform(0.85, 1.0))
        cutout = paint(p.look, p.size, turn=p.turn, mirrored=p.mirrored, squeeze=squeeze, light=scenery.light)
        left, top = round(p.x - cutout.origin[0]), round(p.y - cutout.origin[1])
        h, w = cutout.alpha.shape
        y0, y1, x0, x1 = max(0, top), min(height, top + h), max(0, left), min(width, left + w)
        if y0 >= y1 or x0 >= x1:
            continue
        inside = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        own = cutout.alpha[inside] >= 0.5
        mask = np.zeros((height, width), bool)
        mask[y0:y1, x0:x1] = own & ~taken[y0:y1, x0:x1]
        if mask.sum() < max(12, 0.25 * (cutout.alpha >= 0.5).sum()):
            continue
        joints = None
        if cutout.joints is not None:
            joints = np.zeros((len(JOINTS), 3))
            for joint, (dx, dy) in zip(joints, cutout.joints, strict=True):
                x, y = left + cutout.origin[0] + float(dx), top + cutout.origin[1] + float(dy)
                if 0 <= x < width and 0 <= y < height:
                    joint[:] = round(x, 2), round(y, 2), 1 if taken[int(y), int(x)] else 2
        taken |= mask
        seen.append(
            (p, cutout, (slice(y0, y1), slice(x0, x1)), inside, Thing(p.look, mask, box_of(mask), joints, p.crowd))
        )

    rgb = scenery.rgb.copy()
    for p, cutout, window, inside, thing in reversed(seen):
        if thing.look.name not in FLYING:
            _cast_shadow(rgb, p, scenery.light)
        alpha = cutout.alpha[inside][..., None]
        rgb[window] += alpha * (cutout.rgb[inside] - rgb[window])
    ys, xs = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    rgb *= scenery.gain * (1 - np.float32(r.uniform(0.03, 0.12)) * (xs**2 + ys**2).astype(np.float32))[..., None]
    rgb += np.float32(r.uniform(0.003, 0.016)) * r.standard_normal((height, width, 1), np.float32)
    return Picture((np.clip(rgb, 0, 1) * 255).astype(np.uint8), scenery.stuff, [thing for *_, thing in reversed(seen)])


def _cast_shadow(rgb: Array, p: Placement, light: float) -> None:
    """Darkens the ground at the feet, drawn out away from the light."""
    height, width = rgb.shape[:2]
    cx, cy, rx, ry = p.x - 0.35 * p.size * np.cos(light), p.y + 0.93 * p.size, 0.85 * p.size, 0.16 * p.size
    x0, x1 = max(0, int(cx - 2 * rx)), min(width, int(cx + 2 * rx) + 1)
    y0, y1 = max(0, int(cy - 2 * ry)), min(height, int(cy + 2 * ry) + 1)
    if x0 < x1 and y0 < y1:
        ys, xs = np.ogrid[y0:y1, x0:x1]
        distance = ((xs - cx) / rx) ** 2 + ((ys - cy) / ry) ** 2
        rgb[y0:y1, x0:x1] *= (1 - 0.6 * np.exp(-2 * distance)).astype(np.float32)[..., None]


def _place(r: Generator, look: Look, scenery: Backdrop, low: float, high: float, main: bool = False) -> Placement:
    """Somewhere it could be: standing on the ground, or in the air if it flies; size as a share of the short side."""
    height, width = scenery.stuff.shape
    size = min(height, width) * float(r.uniform(low, high)) / 2
    x = width * float(r.uniform(0.34, 0.66) if main else r.uniform(0.05, 0.95))
    if main and look.name in FLYING:
        y = height * float(r.uniform(0.35, 0.6))
    elif look.name in FLYING:
        y = float(r.uniform(0.1 * height, scenery.horizon))
    else:
        feet = float(r.uniform(min(scenery.horizon + 0.06 * height, 0.9 * height), 0.98 * height))
        y = max(feet, 1.8 * size if main else 0) - 0.95 * size
    turn = float(r.normal(0, 0.35 if look.name in FLYING or look.name == "leaf" else 0.12))
    return Placement(look, x, y, size, turn, bool(r.random() < 0.5))


def _odd_size(r: Generator, side: int) -> tuple[int, int]:
    """Width and height as cameras have them, short side around `side`."""
    short = round(side * float(r.uniform(0.8, 1.25)))
    long = round(short * (1.0, 4 / 3, 4 / 3, 3 / 2, 16 / 9)[int(r.integers(5))])
    return (long, short) if r.random() < 0.65 else (short, long)


def _picture(r: Generator, main: Look, side: int, others: int) -> tuple[Picture, str]:
    place = list(PLACES)[int(r.integers(len(PLACES)))]
    scenery = backdrop(r, place, *_odd_size(r, side))
    chosen = [individual(r, list(SHAPES)[zipf(r, len(SHAPES))], _texture(r)) for _ in range(others)]
    behind = [_place(r, look, scenery, 0.2, 0.42) for look in chosen]
    behind.sort(key=lambda p: p.y + p.size)
    return compose(r, scenery, [*behind, _place(r, main, scenery, 0.62, 0.98, main=True)]), place


def _texture(r: Generator) -> str:
    return TEXTURES[int(r.integers(len(TEXTURES)))]


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes of an image (h, w, 3)."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return file.getvalue()


# ---- the three kinds of still pictures


def photo(seed: int, index: int, side: int) -> tuple[str, bytes, str, dict[str, object]]:
    """Captioned photo number `index`: its name below photos/, bytes, caption, and the truth. The first are PLANTED."""
    r = generator(seed, "photo", index)
    main = individual(r, list(SHAPES)[zipf(r, len(SHAPES), 0.8)], _texture(r))
    picture, place = _picture(r, main, side, others=int(r.choice(3, p=[0.5, 0.3, 0.2])))
    shapes = [thing.look.name for thing in reversed(picture.things)]
    caption, tags, untagged = write_caption(r, shapes, main.texture, place)
    quality = int(r.integers(70, 96))
    data = encode_jpeg(picture.rgb, quality)
    planted = PLANTED[index] if index < len(PLANTED) else None
    image, file = Image.fromarray(picture.rgb), io.BytesIO()
    if planted == "broken":
        data = data[: len(data) // 2]
    elif planted == "cmyk":
        image.convert("CMYK").save(file, "JPEG", quality=quality)
        data = file.getvalue()
    elif planted == "exif orientation 6":
        exif = Image.Exif()
        exif[0x0112] = 6  # show it turned clockwise, so store it turned the other way
        image.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=quality, exif=exif)
        data = file.getvalue()
    elif planted == "zero bytes":
        data = b""
    name = f"{hashlib.sha256(f'{seed}/{index}'.encode()).hexdigest()[:2]}/{index:06d}.jpg"
    objects = [{"class": t.look.name, "texture": t.look.texture, "box": list(t.box)} for t in reversed(picture.things)]
    truth: dict[str, object] = {
        "image": name, "width": image.width, "height": image.height, "place": place, "objects": objects,
        "tags": tags, "untagged": untagged, "planted": planted,
    }  # fmt: skip
    return name, data, caption, truth


def class_names(classes: int) -> list[tuple[str, str]]:
    """The (texture, shape) of each transfer class: every shape comes with several textures, so neither alone decides."""
    textured = [texture for texture in TEXTURES if texture not in ("plain", "furry")]
    shapes = [shape for shape in SHAPES if shape != "person"]
    some = shapes[: max(1, -(-classes // 2))]  # two textures a shape, as long as there are shapes
    pairs = [(textured[(i + k) % len(textured)], shape) for i, shape in enumerate(some) for k in (0, 2)]
    rest = [(texture, shape) for shape in shapes for texture in textured if (texture, shape) not in pairs]
    return [*pairs, *rest][:classes]


def class_photo(seed: int, split: str, texture: str, shape: str, index: int, side: int) -> bytes:
    """Labelled photo: the class is shape x texture; colours, pose, place and light say nothing about it."""
    r = generator(seed, f"{split}/{texture}_{shape}", index)
    picture, _ = _picture(r, individual(r, shape, texture), side, others=int(r.random() < 0.25))
    return encode_jpeg(picture.rgb, int(r.integers(70, 96)))


def categories() -> list[dict[str, object]]:
    """COCO panoptic categories: things 1.., stuff 101.. ."""
    things = [{"id": i + 1, "name": name, "supercategory": "thing", "isthing": 1} for i, name in enumerate(SHAPES)]
    stuff = [{"id": 101 + i, "name": name, "supercategory": "stuff", "isthing": 0} for i, name in enumerate(STUFF)]
    person = {"keypoints": list(JOINTS), "skeleton": [list(bone) for bone in SKELETON]}
    return [{**c, **(person if c["name"] == "person" else {})} for c in things + stuff]


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, object]:
    """Uncompressed COCO run-length code of a mask (h, w): columns first, starting with a run of zeros."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def scene(seed: int, index: int, side: int) -> tuple[bytes, bytes, dict[str, list[dict[str, object]]]]:
    """Scene number `index`: JPEG, panoptic PNG, and {"images": [1], "annotations": [...], "segments": [...]} without
    annotation ids. Sometimes a flock of one kind is annotated as one crowd."""
    r = generator(seed, "scene", index)
    place = list(PLACES)[int(r.integers(len(PLACES)))]
    scenery = backdrop(r, place, *_odd_size(r, side))
    names = [list(SHAPES)[zipf(r, len(SHAPES), 0.6)] for _ in range(int(r.integers(3, 8)))]
    if r.random() < 0.5:
        names.append("person")
    placements = [_place(r, individual(r, name, _texture(r)), scenery, 0.22, 0.6) for name in names]
    if r.random() < 0.15:
        flock = individual(r, list(SHAPES)[zipf(r, len(SHAPES))], _texture(r))
        spot = _place(r, flock, scenery, 0.12, 0.16)
        placements += [
            Placement(flock, spot.x + float(dx), spot.y + float(dy), spot.size, 0.0, bool(r.random() < 0.5), crowd=1)
            for dx, dy in r.normal(0, 1.1, (8, 2)) * spot.size
        ]
    placements.sort(key=lambda p: p.y + p.size)
    picture = compose(r, scenery, placements)

    seen = [(t.look.name, t.mask, t.joints, 0) for t in picture.things if not t.crowd]
    crowd = [t for t in picture.things if t.crowd]
    if crowd:
        seen.append((crowd[0].look.name, np.any([t.mask for t in crowd], axis=0), None, 1))
    height, width = picture.stuff.shape
    ids = np.zeros((height, width), np.int64)
    free = np.ones((height, width), bool)
    category = {str(c["name"]): c["id"] for c in categories() if c["isthing"]}
    annotations: list[dict[str, object]] = []
    segments: list[dict[str, object]] = []

    def add(mask: NDArray[np.bool_], category_id: object, iscrowd: int) -> dict[str, object]:
        # an odd factor modulo 2**24 never repeats an id, and gives segments colours that the eye can tell apart
        segment_id = (len(segments) + 1) * 7_368_787 % 2**24
        x0, y0, x1, y1 = box_of(mask)
        ids[mask] = segment_id
        segment: dict[str, object] = {
            "id": segment_id, "category_id": category_id, "area": int(mask.sum()),
            "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": iscrowd,
        }  # fmt: skip
        segments.append(segment)
        return segment

    for name, mask, joints, iscrowd in seen:
        free &= ~mask
        segment = add(mask, category[name], iscrowd)
        annotation = {"image_id": index + 1, **segment, "segmentation": run_lengths(mask)}
        del annotation["id"]
        if name == "person":
            points = np.zeros((len(JOINTS), 3)) if joints is None else joints
            annotation["keypoints"] = [
                round(x, 2) if i % 3 < 2 else int(x) for i, x in enumerate(points.ravel().tolist())
            ]
            annotation["num_keypoints"] = int((points[:, 2] > 0).sum())
        annotations.append(annotation)
    for value in range(len(STUFF)):
        mask = free & (picture.stuff == value)
        if mask.any():
            add(mask, 101 + value, 0)
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    png = io.BytesIO()
    Image.fromarray(colours).save(png, "PNG")
    image: dict[str, object] = {"id": index + 1, "file_name": f"{index:06d}.jpg", "width": width, "height": height}
    return (
        encode_jpeg(picture.rgb, 90),
        png.getvalue(),
        {"images": [image], "annotations": annotations, "segments": segments},
    )
