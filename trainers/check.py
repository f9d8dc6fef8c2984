"""`--check`: what a run would be, before it is started: one sample, one batch forward and backward, sizes and times."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from sharding.images import evaluation_batches
from sharding.plan import Plan, Records
from sharding.stream import read_samples
from trainers.fit import Place, Regime, autocast, check_shares, mixed, normalise, start_processes, wrap

if TYPE_CHECKING:
    from trainers.probe import Probe


def check(regime: Regime, name: str) -> None:
    """Print what a run of this recipe would be; writes nothing.

    Raises:
        InputError: as the run would.
    """
    with start_processes() as place:
        plan = regime.open_plan()
        check_shares(regime, plan, place)
        lines = [("recipe", f"{name} ({type(regime).__name__}, {regime.steps:,} steps)"), *_sources(plan)]
        torch.manual_seed(mixed(regime.seed))
        model = regime.build_model(plan)
        lines.append(
            ("network", f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(plan.vocabulary):,} labels")
        )
        share = regime.batch_size // place.world_size
        lines.append(("batch", f"{share} x {place.world_size} ranks x {regime.threads} loader threads each"))
        passes = regime.steps * regime.batch_size / plan.samples_per_pass
        lines.append(("passes", f"{passes:.2f} over {plan.samples_per_pass:,} training samples"))
        model = model.to(memory_format=torch.channels_last).to(place.device)
        net = wrap(model, regime, place)
        batches = regime.batches(plan, 0, 2, place)
        seconds, loading, loss = 0.0, 0.0, 0.0
        for _ in range(2):  # the first one warms up: memory, kernels, compiling
            begin = time.monotonic()
            batch = next(batches)
            loaded = time.monotonic()
            model.train()
            with autocast(regime, place):
                value = regime.loss(net, batch, place.device)
            value.backward()  # type: ignore[no-untyped-call]
            loss = loss or float(value.detach())
            if place.device.type == "cuda":
                torch.cuda.synchronize()
            loading, seconds = loaded - begin, time.monotonic() - loaded
        precision = "bfloat16" if autocast(regime, place)._enabled else "float32"
        lines.append(("device", f"{place.device}, {precision}, {torch.get_num_threads()} torch threads per rank"))
        lines.append(("first loss", f"{loss:.4f}; a guess at random gives {math.log(len(plan.vocabulary)):.4f}"))
        lines.append(
            ("step", f"{1000 * seconds:.0f} ms forward and backward, {1000 * loading:.0f} ms waiting for data")
        )
        lines.append(("peak memory", f"{_peak(place) / 2**30:.2f} GiB per rank"))
        lines.append(("whole run", f"about {_duration((seconds + loading) * regime.steps)}, without evaluations"))
        if place.rank == 0:
            _print(lines)


def check_probe(probe: Probe, name: str) -> None:
    """The same for a linear probe: one batch of features, forward only."""
    with start_processes() as place:
        plans = probe.open_plans()
        lines = [("recipe", f"{name} (linear probe)")]
        for plan in plans.values():
            lines += _sources(plan)
        model = probe.build_model(plans["train"]).to(memory_format=torch.channels_last).to(place.device)
        lines.append(("network", f"{sum(p.numel() for p in model.parameters()):,} parameters"))
        batch = next(
            evaluation_batches(
                plans["train"], batch_size=probe.batch_size, size=probe.image_size, threads=probe.threads
            )
        )
        begin = time.monotonic()
        features = probe.features(model, normalise(batch.images, place.device))
        seconds = time.monotonic() - begin
        lines.append(("features", f"{features.shape[1]} per image"))
        lines.append(("peak memory", f"{_peak(place) / 2**30:.2f} GiB"))
        total = sum(plan.samples_per_pass for plan in plans.values())
        lines.append(
            ("whole run", f"about {_duration(seconds / len(batch.keys) * total)} for the features of {total:,} images")
        )
        _print(lines)


def _sources(plan: Plan) -> list[tuple[str, str]]:
    """One opened sample per source."""
    lines = []
    zero = np.zeros(1, dtype=np.int64)
    for number, folder in enumerate(plan.folders):
        samples = sum(shard.samples for shard in plan.shards_of(number))
        sample = read_samples(plan, Records(zero, zero + number, zero, zero, zero.astype(np.uint64)))[0]
        sizes = ", ".join(f"{extension} {len(data):,} bytes" for extension, data in sample.members.items())
        lines.append(
            ("shards", f"{folder}: {samples:,} samples in {len(plan.shards_of(number))} shards; {sample.key}: {sizes}")
        )
    return lines


def _peak(place: Place) -> int:
    if place.device.type == "cuda":
        return torch.cuda.max_memory_allocated(place.device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _print(lines: list[tuple[str, str]]) -> None:
    print("\n".join(f"{what:12} {value}" for what, value in lines))
    if "WORLD_SIZE" not in os.environ:
        print("for more ranks: torchrun --nproc-per-node N -m trainers RECIPE ...")
