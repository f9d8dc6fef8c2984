"""Laws of the order: pure, exactly once per pass, the same for any number of ranks, shuffled."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.errors import InputError
from sharding.manifest import Manifest, Shard, write_manifest
from sharding.plan import _permute, open_plan
from sharding.stream import read_samples


def places(plan, start: int, stop: int) -> list[tuple[int, int, int]]:  # type: ignore[no-untyped-def]
    at = plan.at(np.arange(start, stop))
    return list(zip(at.dataset.tolist(), at.shard.tolist(), at.record.tolist(), strict=True))


def make_set(folder: Path, sizes: list[int]) -> str:
    """A manifest without shards: planning reads nothing else, but for the labels' kind, which needs an index."""
    shards = tuple(Shard(f"shard-{i:06d}.tar", 1, "0" * 64, n) for i, n in enumerate(sizes))
    write_manifest(str(folder), Manifest("test", {}, sum(sizes), sum(sizes), {}, shards, None))
    for i, n in enumerate(sizes):
        rows = "".join(f"jpg 512 1 {i:04d}{k:06d}.jpg\n" for k in range(n))
        (folder / f"shard-{i:06d}.idx").write_text(f"v1.2 {n}\n{rows}")
    return str(folder)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    seed=st.integers(0, 9),
    lanes=st.sampled_from([1, 4, 64]),
)
def test_each_pass_holds_each_sample_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int, lanes: int
) -> None:
    plan = open_plan(make_set(tmp_path_factory.mktemp("set"), sizes), seed=seed, lanes=lanes)
    everything = [(0, s, r) for s, n in enumerate(sizes) for r in range(n)]
    for number in range(3):
        assert sorted(places(plan, number * sum(sizes), (number + 1) * sum(sizes))) == everything


def test_ranks_together_read_the_same_sequence(tmp_path: Path) -> None:
    plan = open_plan(make_set(tmp_path, [7, 30, 11, 25, 40]))
    whole = dict(zip(range(300), places(plan, 0, 300), strict=True))
    for world_size in (1, 2, 4, 8, 64):
        shares = [plan.positions(0, 300, rank, world_size) for rank in range(world_size)]
        assert sorted(np.concatenate(shares).tolist()) == list(range(300))
        for share in shares:
            at = plan.at(share)
            assert [whole[p] for p in share.tolist()] == list(zip(at.dataset, at.shard, at.record, strict=True))
    with pytest.raises(InputError, match=r"divide the 64 lanes; found 3, possible: \[1, 2, 4"):
        plan.positions(0, 10, 0, 3)


def test_random_access_equals_the_sequence_and_a_second_plan(tmp_path: Path) -> None:
    folder = make_set(tmp_path, [50, 60, 70])
    one, two = open_plan(folder, seed=5), open_plan(folder, seed=5)
    sequence = places(one, 0, 500)
    picks = np.random.default_rng(0).permutation(500)
    at = two.at(picks)
    assert [sequence[p] for p in picks] == list(zip(at.dataset, at.shard, at.record, strict=True))
    assert one.fingerprint == two.fingerprint != open_plan(folder, seed=6).fingerprint
    assert sequence != places(open_plan(folder, seed=6), 0, 500)
    assert sequence[:180] != sequence[180:360]


def test_a_rank_reads_few_shards(tmp_path: Path) -> None:
    """64 shards of 100 over 64 lanes: a rank of 16 owns 4 lanes, which touch at most 2 shards each."""
    plan = open_plan(make_set(tmp_path, [100] * 64))
    for rank in range(16):
        touched = set(plan.at(plan.positions(0, 6400, rank, 16)).shard.tolist())
        assert len(touched) <= 8


def test_order_is_shuffled(tmp_path: Path) -> None:
    """A sample's place in one pass does not tell the next, and samples that shared a batch meet again only by chance."""
    plan = open_plan(make_set(tmp_path, [500] * 8))
    at = plan.at(np.arange(8000))
    flat = at.shard * 500 + at.record
    first, second = np.argsort(flat[:4000]), np.argsort(flat[4000:])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06  # 4 standard errors of independent orders
    met = [
        {
            (a, b)
            for batch in np.sort(flat[start : start + 3968].reshape(62, 64))
            for i, a in enumerate(batch)
            for b in batch[i + 1 :]
        }
        for start in (0, 4000)
    ]
    expected = len(met[0]) * 63 / 3999
    assert abs(len(met[0] & met[1]) - expected) < 0.1 * expected


def test_weights_are_exact(tmp_path: Path) -> None:
    a, b = make_set(tmp_path / "a", [40]), make_set(tmp_path / "b", [300])
    plan = open_plan([a, b], weights=[6, 4])
    share = Counter(plan.at(np.arange(64 * 50)).dataset.tolist())
    assert share == {0: 64 * 30, 1: 64 * 20}
    batches = plan.at(np.arange(64 * 50)).dataset.reshape(50, 64)
    assert set((batches == 0).sum(1).tolist()) <= {38, 39}  # 38.4 of 64: no batch is a coin toss
    lane = plan.at(np.arange(5, 64 * 500, 64))  # one lane on its own passes over its own part of each set, in full
    assert len({(d, r) for d, r in zip(lane.dataset.tolist(), lane.record.tolist(), strict=True) if d == 0}) <= 40
    assert {
        r for d, r in zip(plan.at(np.arange(9000)).dataset, plan.at(np.arange(9000)).record, strict=True) if d == 1
    } == set(range(300))


def test_two_folders_read_as_one(tmp_path: Path) -> None:
    a, b = make_set(tmp_path / "a", [40, 3]), make_set(tmp_path / "b", [30])
    plan = open_plan(f"{a},{b}")
    assert plan.samples_per_pass == 73
    assert len(set(places(plan, 0, 73))) == 73
    assert Counter(places(plan, 73, 146)) == Counter(places(plan, 0, 73))


def test_parts_are_disjoint_and_complete(tmp_path: Path) -> None:
    folder = make_set(tmp_path, [9, 20, 13, 58])
    train, held = open_plan(folder, part=(0.0, 0.9)), open_plan(folder, part=(0.9, 1.0))
    assert (train.samples_per_pass, held.samples_per_pass) == (90, 10)
    both = places(train, 0, 90) + places(held, 0, 10)
    assert len(set(both)) == 100
    assert train.in_order(0, 90).record.tolist()[:12] == [*range(9), 0, 1, 2]


def test_few_labels(class_shards: str) -> None:
    plan = open_plan(class_shards, per_label=3, seed=1)
    labels = [s.members["cls"] for s in read_samples(plan, plan.in_order(0, 100), ["cls"])]
    assert Counter(labels) == {b"0": 3, b"1": 3, b"2": 3, b"3": 3}
    other = open_plan(class_shards, per_label=3, seed=2)
    assert {s.key for s in read_samples(plan, plan.in_order(0, 100))} != {
        s.key for s in read_samples(other, other.in_order(0, 100))
    }


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_permute_is_a_permutation(size: int, key: int) -> None:
    out = _permute(np.arange(size), np.full(size, size), np.full(size, key, dtype=np.uint64))
    assert np.array_equal(np.sort(out), np.arange(size))


def test_sets_with_other_labels_are_not_read_as_one(class_shards: str, tag_shards: str) -> None:
    with pytest.raises(InputError, match=r"same labels.*--vocabulary"):
        open_plan([class_shards, tag_shards])
