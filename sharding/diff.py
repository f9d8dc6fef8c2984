"""Two datasets compared by key, however each is cut into shards: both are walked in the order of their keys, side by side."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from dataclasses import dataclass

from sharding.order import Row, rows_in_order
from sharding.plan import Plan, open_plan
from sharding.stream import read_sample


@dataclass(frozen=True)
class Difference:
    """A key (or label name), and how the two sets differ there: `only A`, `only B`, or the members whose bytes differ."""

    key: str
    kind: str  # only_a, only_b, members, label
    found: str


def diff(a: str, b: str) -> Iterator[Difference | None]:
    """The differences between the datasets `a` and `b`, first of the labels, then by ascending key; None for each equal sample.

    Raises:
        InputError: when one of the folders is no finished dataset.
    """
    plans = open_plan(a), open_plan(b)
    yield from _label_differences(*plans)
    left, right = (rows_in_order(plan) for plan in plans)
    one, two = next(left, None), next(right, None)
    while one or two:
        if two is None or (one and one.key < two.key):
            assert one
            yield Difference(one.key, "only_a", plans[0].shards_of(0)[one.shard].name)
            one = next(left, None)
        elif one is None or two.key < one.key:
            yield Difference(two.key, "only_b", plans[1].shards_of(0)[two.shard].name)
            two = next(right, None)
        else:
            members = _differing(plans, one, two)
            yield Difference(one.key, "members", " ".join(members)) if members else None
            one, two = next(left, None), next(right, None)


def _differing(plans: tuple[Plan, Plan], one: Row, two: Row) -> list[str]:
    """The extensions that only one of the samples has, or whose bytes differ; sizes are compared before bytes are read."""
    sizes = [{member.extension: member.size for member in row.members} for row in (one, two)]
    differing = {e for e in sizes[0].keys() | sizes[1].keys() if sizes[0].get(e) != sizes[1].get(e)}
    same = sizes[0].keys() - differing
    x, y = (
        read_sample(plan, 0, row.shard, row.record, same).members for plan, row in zip(plans, (one, two), strict=True)
    )
    return sorted(differing | {e for e in same if x[e] != y[e]})


def _label_differences(a: Plan, b: Plan) -> Iterator[Difference]:
    ids: dict[str, list[int | None]] = collections.defaultdict(lambda: [None, None])
    for side, plan in enumerate((a, b)):
        for label in plan.vocabulary:
            ids[label.name][side] = label.id
    for name, (one, two) in sorted(ids.items()):
        if one != two:
            found = "only in A" if two is None else "only in B" if one is None else f"id {one} in A, {two} in B"
            yield Difference(name, "label", found)
