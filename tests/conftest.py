"""Small real datasets, made once per session: JPEGs that differ by class, in shards as the jobs write them."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported; see trainers/__init__.py

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sharding.files import write_atomic
from sharding.manifest import VOCABULARY, Label, Manifest, vocabulary_bytes, write_manifest
from sharding.samples import Sample, make_key, shard_of
from sharding.tar import write_shard

LABELS = ["circle", "cross", "square", "stripe"]


def draw_photo(label: int, seed: int, size: tuple[int, int] = (72, 64)) -> bytes:
    """A noisy JPEG whose shape tells its label."""
    rng = np.random.default_rng([label, seed])
    pixels = rng.integers(60, 140, (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    x, y, r = int(rng.integers(20, 50)), int(rng.integers(20, 44)), int(rng.integers(10, 18))
    colour = tuple(int(c) for c in rng.integers(150, 255, 3))
    if label == 0:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif label == 1:
        draw.line((x - r, y - r, x + r, y + r), fill=colour, width=6)
        draw.line((x - r, y + r, x + r, y - r), fill=colour, width=6)
    elif label == 2:
        draw.rectangle((x - r, y - r, x + r, y + r), outline=colour, width=5)
    else:
        for offset in range(-r, r, 8):
            draw.line((x - r, y + offset, x + r, y + offset), fill=colour, width=4)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92)
    return out.getvalue()


def write_dataset(folder: Path, samples: dict[str, dict[str, bytes]], num_shards: int, labels: list[str]) -> str:
    """A finished dataset folder of the samples (source -> members)."""
    by_shard: dict[int, list[Sample]] = {}
    for source, members in samples.items():
        key = make_key(source)
        by_shard.setdefault(shard_of(key, num_shards), []).append(Sample(key, members))
    shards = tuple(
        write_shard(str(folder), f"shard-{number:06d}.tar", sorted(by_shard[number], key=lambda s: s.key))
        for number in sorted(by_shard)
    )
    vocabulary = None
    if labels:
        data = vocabulary_bytes([Label(i, name, (name,), 0) for i, name in enumerate(labels)])
        write_atomic(f"{folder}/{VOCABULARY}", data)
        vocabulary = {"name": VOCABULARY, "sha256": hashlib.sha256(data).hexdigest(), "labels": len(labels)}
    write_manifest(str(folder), Manifest("test", {}, len(samples), len(samples), {}, shards, vocabulary))
    return str(folder)


def _members(label: int, number: int, extension: str, value: object) -> dict[str, bytes]:
    jpeg = draw_photo(label, number)
    width, height = Image.open(io.BytesIO(jpeg)).size
    facts = json.dumps({"source": f"{label}/{number}.jpg", "width": width, "height": height})
    return {"jpg": jpeg, "json": facts.encode(), extension: json.dumps(value).encode()}


@pytest.fixture(scope="session")
def class_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """96 photos of 4 classes in about 5 shards, members jpg json cls."""
    samples = {f"{i % 4}/{i}.jpg": _members(i % 4, i, "cls", i % 4) for i in range(96)}
    return write_dataset(tmp_path_factory.mktemp("classes"), samples, 5, LABELS)


@pytest.fixture(scope="session")
def tag_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """96 photos with one or two of 6 tags in about 5 shards, members jpg json tags.json."""
    tags = [[i % 4] if i % 3 else sorted({i % 4, 4 + i % 2}) for i in range(96)]
    samples = {f"{i}.jpg": _members(i % 4, 1000 + i, "tags.json", tags[i]) for i in range(96)}
    return write_dataset(tmp_path_factory.mktemp("tags"), samples, 5, [*LABELS, "love", "photo"])
