"""The samples of one dataset in the order of their keys, without their bytes: what `merge`, `diff` and `browse` walk over.

Jobs write shards as ascending ranges of keys, so their order is a walk from shard to shard. Sets adopted by
`omnishard shards index` lie in any order; their keys are sorted in memory.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from sharding.index import Member
from sharding.manifest import Manifest
from sharding.plan import Plan
from sharding.stream import read_rows

ADOPTED = "index"  # the job of a manifest that was made for foreign tars
REJECTS = "rejects.jsonl"


@dataclass(frozen=True)
class Row:
    """A sample's key, its place in the dataset, its members."""

    key: str
    shard: int
    record: int
    members: tuple[Member, ...]


def num_ranges(manifest: Manifest) -> int | None:
    """Into how many ranges of keys the job cut the dataset (empty ones make no shard); None where the options do not say."""
    shards, per_shard = manifest.options.get("shards"), manifest.options.get("samples_per_shard")
    if isinstance(shards, int):
        return shards
    return max(1, -(-manifest.read // per_shard)) if isinstance(per_shard, int) else None


def shard_rows(plan: Plan, shard: int) -> Iterator[Row]:
    """The samples of one shard in its order; the plan is of a single folder."""
    for record, members in enumerate(read_rows(plan, 0, shard)):
        yield Row(members[0].key, shard, record, members)


def rows_in_order(plan: Plan, low: str = "", high: str | None = None) -> Iterator[Row]:
    """The samples with low <= key < high by ascending key; the plan is of a single folder."""
    shards = range(len(plan.shards_of(0)))
    if plan.manifests[0].job == ADOPTED:
        rows: Iterator[Row] = iter(sorted((r for s in shards for r in shard_rows(plan, s)), key=lambda row: row.key))
    else:
        rows = (row for s in shards[shard_with(plan, low) :] for row in shard_rows(plan, s))
    for row in rows:
        if high is not None and row.key >= high:
            return
        if row.key >= low:
            yield row


def shard_with(plan: Plan, key: str) -> int:
    """The shard of a built dataset that holds the key if any does: the last that does not begin behind it."""
    shards = range(len(plan.shards_of(0)))
    return max(0, bisect.bisect_right(shards, key, key=lambda shard: read_rows(plan, 0, shard)[0][0].key) - 1)
