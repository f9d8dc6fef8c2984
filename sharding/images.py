"""Batches of images: decode, crop, resize, flip on the CPU by libjpeg-turbo, or by DALI (on the GPU where there is one).

Crop windows and flips are drawn from (seed, position) before any decoder runs, so both paths cut the same pixels and a
rerun repeats them. Pixels stay uint8 until they are on the device.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharding.errors import InputError
from sharding.plan import Plan, Records, hashed_uniform
from sharding.samples import Sample, decode_labels
from sharding.stream import read_samples

logger = logging.getLogger(__name__)

_TRIES = 10  # as torchvision's RandomResizedCrop
_DRAWS = 4 * _TRIES + 1
_AHEAD = 3  # batches decoded ahead of the one in use


@dataclass(frozen=True)
class Batch:
    """Samples of one step on one rank."""

    images: NDArray[np.uint8]  # (B, H, W, 3); from DALI on a GPU a CUDA tensor of the same shape and type
    labels: NDArray[np.int64]  # (B, K) label ids padded with -1; K = 1 for class sets
    keys: list[str]
    positions: NDArray[np.int64]  # (B,)


@dataclass(frozen=True)
class Window:
    """A crop in pixels of the stored image, and whether the result is mirrored."""

    x: int
    y: int
    width: int
    height: int
    flip: bool


def train_batches(
    plan: Plan,
    *,
    batch_size: int,
    size: int,
    start_step: int = 0,
    stop_step: int,
    rank: int = 0,
    world_size: int = 1,
    threads: int = 2,
    loader: str = "cpu",
    scale: tuple[float, float] = (0.08, 1.0),
) -> Iterator[Batch]:
    """Random-resized-cropped and flipped batches of the steps [start_step, stop_step).

    Args:
        batch_size: images per step over all ranks; step s takes the positions [s * batch_size, (s + 1) * batch_size).
        size: side of the square result in pixels.
        scale: smallest and largest share of the image's area that a crop takes.
        loader: `cpu`, `dali`, or `auto` (DALI when a GPU and DALI are there).

    Raises:
        InputError: when the batch cannot be shared evenly by the ranks, or a record cannot be decoded.
    """
    if batch_size % world_size:
        raise InputError(f"batch_size must be a multiple of the number of ranks; found {batch_size} and {world_size}.")
    steps = (
        plan.at(plan.positions(step * batch_size, (step + 1) * batch_size, rank, world_size))
        for step in range(start_step, stop_step)
    )
    if choose_loader(loader) == "dali":
        yield from _dali_batches(plan, steps, batch_size // world_size, size, scale, threads)
    else:
        yield from _cpu_batches(plan, steps, size, scale, threads)


def evaluation_batches(
    plan: Plan, *, batch_size: int, size: int, rank: int = 0, world_size: int = 1, threads: int = 2
) -> Iterator[Batch]:
    """Every sample once over the ranks, in the order of the keys; the last batch of a rank may be short.

    The short side is resized to size * 256 / 224 and the centre is cut out, as is usual on ImageNet.
    """
    first, last = (plan.samples_per_pass * r // world_size for r in (rank, rank + 1))
    steps = (plan.in_order(at, min(at + batch_size, last)) for at in range(first, last, batch_size))
    yield from _cpu_batches(plan, steps, size, None, threads)


def choose_loader(loader: str) -> str:
    """`cpu` or `dali`; what `auto` chose is logged with the reason."""
    if loader not in ("auto", "cpu", "dali"):
        raise InputError(f"loader must be auto, cpu or dali; found {loader!r}.")
    dali = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
    if loader == "dali" and not dali:
        raise InputError('loader dali needs DALI: pip install "omnishard[dali]", or --loader cpu.')
    if loader != "auto":
        return loader
    gpu = _gpu_count() > 0
    chosen = "dali" if dali and gpu else "cpu"
    logger.info(
        "loader auto: %s (%s GPU, DALI %s)", chosen, "a" if gpu else "no", "installed" if dali else "not installed"
    )
    return chosen


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


def draw_window(
    uniform: NDArray[np.float64],
    width: int,
    height: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Window:
    """The crop of Szegedy et al. 2015 ("Going deeper with convolutions", section 6): area and log aspect ratio uniform.

    Args:
        uniform: 41 numbers in [0, 1), four for each of ten tries and one for the flip.
    """
    area = width * height
    flip = bool(uniform[4 * _TRIES] < 0.5)
    for a, r, x, y in uniform[: 4 * _TRIES].reshape(_TRIES, 4):
        target = area * (scale[0] + a * (scale[1] - scale[0]))
        aspect = math.exp(math.log(ratio[0]) + r * (math.log(ratio[1]) - math.log(ratio[0])))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Window(int(x * (width - w + 1)), int(y * (height - h + 1)), w, h, flip)
    w = min(width, round(height * ratio[1]))  # no try fitted: the largest centre crop of an allowed shape
    h = min(height, round(width / ratio[0]))
    return Window((width - w) // 2, (height - h) // 2, w, h, flip)


def centre_window(width: int, height: int, size: int) -> Window:
    """The part of the stored image that remains when its short side is resized to size * 256 / 224 and the centre is cut."""
    side = max(1, round(min(width, height) * 224 / 256))
    return Window((width - side) // 2, (height - side) // 2, side, side, False)


def decode_window(jpeg: bytes, window: Window, size: int) -> NDArray[np.uint8]:
    """Cut `window` out of a JPEG and resize it to (size, size, 3), antialiased bilinear."""
    import simplejpeg
    from PIL import Image

    pixels = simplejpeg.decode_jpeg(jpeg, "RGB")
    cut = pixels[window.y : window.y + window.height, window.x : window.x + window.width]
    resized = np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BILINEAR))
    return resized[:, ::-1] if window.flip else resized


def _jpeg_of(sample: Sample) -> bytes:
    jpeg = sample.members.get("jpg") or sample.members.get("jpeg")
    if jpeg is None:
        raise InputError(f"image sets have a member jpg; {sample.key} has {', '.join(sample.members) or 'none'}.")
    return jpeg


def _read(
    plan: Plan, records: Records, scale: tuple[float, float] | None, size: int
) -> list[tuple[Sample, bytes, Window]]:
    """Samples with the window that each is to show."""
    import simplejpeg

    uniform = hashed_uniform(records.augmentation, _DRAWS)
    read = []
    for sample, draws in zip(read_samples(plan, records), uniform, strict=True):
        jpeg = _jpeg_of(sample)
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
        except ValueError as error:
            raise InputError(f"{sample.key} is no JPEG ({error}): rebuild its shard, or verify the set.") from error
        window = centre_window(width, height, size) if scale is None else draw_window(draws, width, height, scale)
        read.append((sample, jpeg, window))
    return read


def _pad(labels: list[list[int]]) -> NDArray[np.int64]:
    padded = np.full((len(labels), max([1, *map(len, labels)])), -1, dtype=np.int64)
    for row, ids in zip(padded, labels, strict=True):
        row[: len(ids)] = ids
    return padded


def _cpu_batches(
    plan: Plan, steps: Iterator[Records], size: int, scale: tuple[float, float] | None, threads: int
) -> Iterator[Batch]:
    """Threads decode a few batches ahead; libjpeg-turbo and Pillow release the interpreter lock."""

    def load(records: Records, images: NDArray[np.uint8], first: int) -> list[tuple[str, list[int]]]:
        found = []
        for i, (sample, jpeg, window) in enumerate(_read(plan, records, scale, size), first):
            try:
                images[i] = decode_window(jpeg, window, size)
            except ValueError as error:
                raise InputError(
                    f"{sample.key} cannot be decoded ({error}): rebuild its shard, or verify the set."
                ) from error
            found.append((sample.key, decode_labels(sample.members)))
        return found

    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    waiting: deque[tuple[Records, NDArray[np.uint8], list[Future[list[tuple[str, list[int]]]]]]] = deque()
    try:
        while True:
            while len(waiting) < _AHEAD and (records := next(steps, None)) is not None:
                images = np.empty((len(records), size, size, 3), dtype=np.uint8)
                chunk = max(1, len(records) // (4 * threads))
                starts = range(0, len(records), chunk)
                futures = [pool.submit(load, records.part(s, s + chunk), images, s) for s in starts]
                waiting.append((records, images, futures))
            if not waiting:
                return
            records, images, futures = waiting.popleft()
            found = [row for future in futures for row in future.result()]
            yield Batch(images, _pad([ids for _, ids in found]), [key for key, _ in found], records.position)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _dali_batches(
    plan: Plan, steps: Iterator[Records], batch_size: int, size: int, scale: tuple[float, float], threads: int
) -> Iterator[Batch]:
    """The same windows cut by DALI: on the GPU when there is one, else on its own CPU threads."""
    from nvidia.dali import fn, pipeline_def, types

    gpu = _gpu_count() > 0
    queue: deque[tuple[list[str], NDArray[np.int64], NDArray[np.int64]]] = deque()

    def feed() -> Iterator[tuple[list[Any], ...]]:
        for records in steps:
            read = _read(plan, records, scale, size)
            labels = _pad([decode_labels(sample.members) for sample, _, _ in read])
            queue.append(([sample.key for sample, _, _ in read], labels, records.position))
            yield (
                [np.frombuffer(jpeg, dtype=np.uint8) for _, jpeg, _ in read],
                [np.array([w.x, w.y], dtype=np.int32) for _, _, w in read],
                [np.array([w.width, w.height], dtype=np.int32) for _, _, w in read],
                [np.array(w.flip, dtype=np.int32) for _, _, w in read],
            )

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=batch_size, num_threads=threads, device_id=_current_gpu() if gpu else None, prefetch_queue_depth=2
    )
    def images() -> Any:
        jpegs, anchors, shapes, flips = fn.external_source(source=feed(), num_outputs=4, batch=True)
        cut = fn.decoders.image_slice(
            jpegs, anchors, shapes, axis_names="WH", device="mixed" if gpu else "cpu", adjust_orientation=False
        )
        resized = fn.resize(cut, size=[size, size], interp_type=types.DALIInterpType.INTERP_TRIANGULAR)
        return fn.flip(resized, horizontal=flips)

    pipe = images()
    pipe.build()
    while True:
        try:
            (output,) = pipe.run()
        except StopIteration:
            return
        keys, labels, positions = queue.popleft()
        yield Batch(_to_torch(output.as_tensor()) if gpu else output.as_array().copy(), labels, keys, positions)


def _current_gpu() -> int:
    import torch

    return torch.cuda.current_device()


def _to_torch(output: Any) -> Any:
    import torch

    return torch.utils.dlpack.from_dlpack(output).clone()
