"""What is in a dataset, from its manifest and vocabulary alone: no tar is opened, however many there are."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass

import numpy as np

from sharding.files import exists, join, read_bytes, size_of
from sharding.manifest import MANIFEST, VOCABULARY, Label, Manifest, read_manifest, read_vocabulary
from sharding.plan import open_plan

_LARGE = 4 << 20  # bytes of a manifest from which on its rows are counted, not parsed
_HEAD, _TAIL = 8, 3  # labels shown
_BATCHES = 50


@dataclass(frozen=True)
class Summary:
    """A manifest with its shards summed up."""

    manifest: Manifest  # of a large one without its shards
    shards: int
    bytes: int


def summarize(folder: str) -> Summary:
    """The manifest and the sums over its shards, in under a second for a million of them.

    Raises:
        InputError: when the folder has no manifest that can be read.
    """
    path = join(folder, MANIFEST)
    if exists(path) and size_of(path) > _LARGE:
        data = read_bytes(path)
        start, stop = data.find(b'\n "shards": ['), data.rfind(b"]")
        if 0 < start < stop:
            sizes = re.findall(rb'"bytes": (\d+)', data[start:stop])
            with contextlib.suppress(ValueError, TypeError):  # damaged: the reader below says how
                head = json.loads(data[:start] + b'"shards": []' + data[stop + 1 :])
                return Summary(Manifest(**head | {"shards": ()}), len(sizes), sum(map(int, sizes)))
    manifest = read_manifest(folder)
    return Summary(manifest, len(manifest.shards), sum(shard.bytes for shard in manifest.shards))


def describe(folder: str) -> str:
    """The lines that `omnishard shards info` prints."""
    summary = summarize(folder)
    m = summary.manifest
    lines = [
        f"job          {m.job} (version {m.version})",
        f"read         {m.read:,} = kept {m.kept:,} + rejected {m.read - m.kept:,}",
        *(f"  {reason:<20}{count:>12,}" for reason, count in sorted(m.rejected.items(), key=lambda item: -item[1])),
        f"shards       {summary.shards:,}, {summary.bytes / 1e6:,.1f} MB, "
        f"{m.kept / max(1, summary.shards):,.0f} samples and {summary.bytes / 1e6 / max(1, summary.shards):,.1f} MB each",
        f"fingerprint  {m.fingerprint}",
        "options      " + ", ".join(f"{name.replace('_', '-')} {value}" for name, value in m.options.items()),
    ]
    if exists(join(folder, VOCABULARY)):
        lines += _label_lines(read_vocabulary(folder))
    return "\n".join(lines)


def _label_lines(labels: list[Label]) -> list[str]:
    ranked = sorted(labels, key=lambda label: (-label.count, label.name))
    cut = len(ranked) > _HEAD + _TAIL
    lines = [f"labels       {len(labels):,}" + (", the most frequent and the rarest:" if cut else ":")]
    shown = [*ranked[:_HEAD], None, *ranked[-_TAIL:]] if cut else ranked
    return lines + [f"  {label.name:<20}{label.count:>12,}" if label else "  ..." for label in shown]


def describe_plan(folder: str, batch_size: int, lanes: int = 64, window: int = 4) -> str:
    """How well a run's order is mixed, from the first batches of its plan, and which numbers of ranks it allows.

    The measure is how often two samples of a batch come from one shard, against how often they would in a full permutation
    of all samples. Keys are hashes, so even unshuffled shards hold a random draw; what this measures is company kept twice.
    """
    plan = open_plan(folder, lanes=lanes, window=window)
    counts = np.array([shard.samples for shard in plan.shards_of(0)], dtype=np.float64)
    total = plan.samples_per_pass
    batch = min(batch_size, total)
    starts = np.unique(np.linspace(0, max(0, total - batch), _BATCHES).astype(np.int64))
    pairs, distinct = [], []
    for start in starts:
        shard = plan.at(plan.positions(int(start), int(start) + batch)).shard
        of_one = np.unique(shard, return_counts=True)[1]
        distinct.append(len(of_one))
        pairs.append((of_one * (of_one - 1)).sum() / max(1, batch * (batch - 1)))
    full_pairs = float((counts * (counts - 1)).sum() / max(1, total * (total - 1)))
    full_distinct = float((1 - (1 - counts / total) ** batch).sum())
    pool = min(total, lanes * window * float(counts.mean()))
    lines = [
        f"order        {total:,} samples in {len(counts):,} shards: {lanes} lanes of {total / lanes:,.0f} samples, "
        f"windows of {window} shards ({window * counts.mean():,.0f} samples)",
        f"a batch      of {batch:,} is drawn from about {pool:,.0f} samples, {100 * pool / total:.1f} % of all",
        f"  shards in a batch                        {np.mean(distinct):10.1f}   full permutation {full_distinct:10.1f}",
        f"  two samples of a batch from one shard    {100 * np.mean(pairs):8.3f} %   full permutation {100 * full_pairs:8.3f} %",
        f"ranks        {', '.join(str(n) for n in range(1, lanes + 1) if lanes % n == 0)} (those that divide the lanes)",
    ]
    return "\n".join(lines)
