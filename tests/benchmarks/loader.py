"""Images per second of the loaders, side by side on the same shards in one run: python tests/benchmarks/loader.py [SHARDS].

Round-robin, median of three; wall rate and CPU time per image. Unset OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE when they are
set. Without SHARDS it makes 1,000 photos of 500x375.
"""

from __future__ import annotations

import io
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from sharding.files import join
from sharding.images import train_batches
from sharding.manifest import Manifest, read_manifest, write_manifest
from sharding.plan import open_plan
from sharding.samples import Sample, make_key
from sharding.tar import write_shard

SIZE, BATCH, SECONDS = 224, 64, 5.0


def make_shards(folder: Path) -> str:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(1000):
        pixels = Image.fromarray(rng.integers(0, 255, (47, 63, 3), dtype=np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        grain = np.clip(np.asarray(pixels) + rng.normal(0, 6, (375, 500, 3)), 0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(grain).save(out, "JPEG", quality=90)
        samples.append(Sample(make_key(str(i)), {"jpg": out.getvalue(), "cls": b"0"}))
    samples.sort(key=lambda s: s.key)
    shards = tuple(write_shard(str(folder), f"shard-{i:06d}.tar", samples[i * 250 : i * 250 + 250]) for i in range(4))
    write_manifest(str(folder), Manifest("benchmark", {}, 1000, 1000, {}, shards, None))
    return str(folder)


def ours(folder: str, loader: str) -> Iterator[int]:
    for batch in train_batches(open_plan(folder), batch_size=BATCH, size=SIZE, stop_step=10**9, loader=loader):
        yield len(batch.keys)


def dali(folder: str) -> Iterator[int]:
    from nvidia.dali import fn, pipeline_def

    shards = [join(folder, s.name) for s in read_manifest(folder).shards]

    @pipeline_def(batch_size=BATCH, num_threads=2, device_id=None)
    def pipeline():  # type: ignore[no-untyped-def]
        jpegs = fn.readers.webdataset(
            paths=shards, ext=["jpg"], index_paths=[s.replace(".tar", ".idx") for s in shards]
        )
        cut = fn.decoders.image_random_crop(jpegs, random_area=[0.08, 1.0])
        return fn.flip(fn.resize(cut, size=[SIZE, SIZE]), horizontal=fn.random.coin_flip())

    pipe = pipeline()
    pipe.build()
    while True:
        pipe.run()
        yield BATCH


def webdataset_pillow(folder: str) -> Iterator[int]:
    import torch
    import webdataset
    from torchvision.transforms import v2

    crop = v2.Compose([v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])

    def decode(sample: dict[str, bytes]) -> torch.Tensor:
        return crop(Image.open(io.BytesIO(sample["jpg"])).convert("RGB"))  # type: ignore[no-any-return]

    shards = [join(folder, s.name) for s in read_manifest(folder).shards]
    data = webdataset.WebDataset(shards, shardshuffle=4, resampled=True).shuffle(500).map(decode)
    for batch in torch.utils.data.DataLoader(data, batch_size=BATCH, num_workers=2):
        yield len(batch)


def measure(batches: Iterator[int]) -> tuple[float, float]:
    """Images per second and CPU milliseconds per image, after a warm-up."""
    for _ in range(6):
        next(batches)
    begin, cpu, seen = time.perf_counter(), _cpu(), 0
    while time.perf_counter() - begin < SECONDS:
        seen += next(batches)
    return seen / (time.perf_counter() - begin), 1000 * (_cpu() - cpu) / seen


def _cpu() -> float:
    """CPU seconds of this process and of the children that live: Linux counts the latter only in /proc."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    total, ticks = own.ru_utime + own.ru_stime, os.sysconf("SC_CLK_TCK")
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = sys.argv[1] if len(sys.argv) > 1 else make_shards(Path(temporary))
        candidates: dict[str, Callable[[], Iterator[int]]] = {
            "omnishard, libjpeg-turbo threads": lambda: ours(folder, "cpu"),
            "omnishard, DALI with our windows": lambda: ours(folder, "dali"),
            "DALI alone": lambda: dali(folder),
            "webdataset + Pillow, 2 workers": lambda: webdataset_pillow(folder),
        }
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
        for _ in range(3):
            for name, start in candidates.items():
                rates[name].append(measure(start()))
        base = median(wall for wall, _ in rates["DALI alone"])
        print(f"{'loader':<34} images/s  CPU ms/image  against DALI alone")
        for name, found in rates.items():
            wall, cpu = median(w for w, _ in found), median(c for _, c in found)
            print(f"{name:<34} {wall:8.0f}  {cpu:12.2f}  {wall / base:.2f}x")


if __name__ == "__main__":
    main()
