"""Crops against torchvision, CPU against DALI, batches against the plan."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image

from sharding.errors import InputError
from sharding.images import (
    Window,
    centre_window,
    choose_loader,
    decode_window,
    draw_window,
    evaluation_batches,
    train_batches,
)
from sharding.plan import hashed_uniform, open_plan
from sharding.stream import read_samples


def noisy_jpeg(width: int, height: int) -> bytes:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8))
    out = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.mark.parametrize(
    "window", [Window(3, 5, 100, 80, False), Window(0, 0, 200, 150, True), Window(60, 20, 30, 40, False)]
)
def test_decode_window_equals_torchvision(window: Window) -> None:
    jpeg = noisy_jpeg(200, 152)
    image = tv.pil_to_tensor(Image.open(io.BytesIO(jpeg)))
    expected = tv.resized_crop(image, window.y, window.x, window.height, window.width, [64, 64], antialias=True)
    expected = tv.horizontal_flip(expected) if window.flip else expected
    difference = np.abs(decode_window(jpeg, window, 64).astype(int) - expected.permute(1, 2, 0).numpy().astype(int))
    assert difference.max() <= 2
    assert difference.mean() < 0.5


def test_windows_follow_the_law_of_random_resized_crop() -> None:
    """Against torchvision's own draws: the same distribution of area and aspect ratio."""
    from torchvision.transforms.v2 import RandomResizedCrop

    keys = np.arange(4000, dtype=np.uint64)
    ours = [draw_window(u, 320, 240) for u in hashed_uniform(keys, 41)]
    assert all(w.x >= 0 and w.x + w.width <= 320 and w.y >= 0 and w.y + w.height <= 240 for w in ours)
    torch.manual_seed(0)
    crop, blank = RandomResizedCrop(10), torch.zeros(3, 240, 320)
    theirs = [crop.make_params([blank]) for _ in range(4000)]
    for mine, other in [
        ([w.width * w.height for w in ours], [p["width"] * p["height"] for p in theirs]),
        ([w.width / w.height for w in ours], [p["width"] / p["height"] for p in theirs]),
        ([w.x for w in ours], [p["left"] for p in theirs]),
    ]:
        quantiles = np.linspace(0.05, 0.95, 19)
        scale = np.std(other)
        assert np.abs(np.quantile(mine, quantiles) - np.quantile(other, quantiles)).max() < 0.12 * scale
    assert abs(np.mean([w.flip for w in ours]) - 0.5) < 0.04


def test_no_crop_fits_a_ribbon() -> None:
    assert draw_window(np.full(41, 0.9), 400, 10) == Window(193, 0, 13, 10, False)


def test_train_batches_follow_the_plan(class_shards: str) -> None:
    plan = open_plan(class_shards, seed=3)
    batches = list(train_batches(plan, batch_size=16, size=32, stop_step=13))
    assert [b.images.shape for b in batches] == [(16, 32, 32, 3)] * 13
    keys = [key for batch in batches for key in batch.keys]
    assert keys == [s.key for s in read_samples(plan, plan.at(np.arange(208)))]
    assert len(set(keys[:96])) == 96
    first = read_samples(plan, plan.at(np.arange(16)), ["cls"])
    assert batches[0].labels.tolist() == [[int(s.members["cls"])] for s in first]


def test_a_run_that_starts_in_the_middle_sees_the_same_pixels(class_shards: str) -> None:
    plan = open_plan(class_shards)
    whole = list(train_batches(plan, batch_size=16, size=32, stop_step=9, threads=1))
    rest = list(train_batches(plan, batch_size=16, size=32, start_step=5, stop_step=9, threads=3))
    for one, two in zip(whole[5:], rest, strict=True):
        assert one.keys == two.keys
        assert np.array_equal(one.images, two.images)


def test_ranks_share_the_batch(tag_shards: str) -> None:
    plan = open_plan(tag_shards)
    whole = list(train_batches(plan, batch_size=16, size=24, stop_step=4))
    ranks = [list(train_batches(plan, batch_size=16, size=24, stop_step=4, rank=r, world_size=2)) for r in range(2)]
    for step, batch in enumerate(whole):
        pixels = {k: im.tobytes() for k, im in zip(batch.keys, batch.images, strict=True)}
        halves = [ranks[r][step] for r in range(2)]
        assert [len(h.keys) for h in halves] == [8, 8]
        assert pixels == {k: im.tobytes() for h in halves for k, im in zip(h.keys, h.images, strict=True)}


def test_labels_are_padded(tag_shards: str) -> None:
    batch = next(train_batches(open_plan(tag_shards), batch_size=32, size=24, stop_step=1))
    assert batch.labels.shape == (32, 2)
    assert batch.labels.min() == -1
    assert (batch.labels[:, 0] >= 0).all()


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_evaluation_sees_each_sample_once(class_shards: str, world_size: int) -> None:
    plan = open_plan(class_shards)
    keys = [
        k
        for r in range(world_size)
        for b in evaluation_batches(plan, batch_size=10, size=24, rank=r, world_size=world_size)
        for k in b.keys
    ]
    assert len(keys) == 96
    assert keys == sorted(set(keys))


def test_centre_window_is_the_usual_evaluation_crop() -> None:
    """Resize the short side to 256 and cut the centre 224, by torchvision, against our one resize of the centre."""
    jpeg = noisy_jpeg(400, 320)
    image = tv.pil_to_tensor(Image.open(io.BytesIO(jpeg)))
    expected = tv.center_crop(tv.resize(image, [256], antialias=True), [224, 224]).permute(1, 2, 0).numpy().astype(int)
    ours = decode_window(jpeg, centre_window(400, 320, 224), 224).astype(int)
    assert np.abs(ours - expected).mean() < 1.0


def test_dali_cuts_the_same_windows(class_shards: str) -> None:
    pytest.importorskip("nvidia.dali")
    plan = open_plan(class_shards, seed=7)
    cpu = list(train_batches(plan, batch_size=16, size=48, stop_step=3))
    dali = list(train_batches(plan, batch_size=16, size=48, stop_step=3, loader="dali"))
    for one, two in zip(cpu, dali, strict=True):
        assert one.keys == two.keys
        assert np.array_equal(one.labels, two.labels)
        difference = np.abs(one.images.astype(int) - np.asarray(two.images).astype(int))
        assert difference.mean() < 0.7
        assert np.quantile(difference, 0.999) <= 3


def test_loader_names() -> None:
    assert choose_loader("cpu") == "cpu"
    with pytest.raises(InputError, match="auto, cpu or dali"):
        choose_loader("gpu")


def test_many_threads_open_the_same_shards(class_shards: str) -> None:
    """Two threads that open one file at once: the handle that loses must not close under a read."""
    from sharding import stream

    plan = open_plan(class_shards)
    for _ in range(15):
        stream._open.cache_clear()
        assert len(next(train_batches(plan, batch_size=96, size=8, stop_step=1, threads=8)).keys) == 96
