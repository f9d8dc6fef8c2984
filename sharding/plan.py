"""The order of the data as a pure function: position -> (dataset, shard, record), the same for any ranks, workers, decoder.

A pass over a dataset permutes its shards by a keyed permutation, lays them end to end on a circle, turns the circle by a
keyed offset and cuts it into `lanes` stretches of equal length (or one sample more). Lane l serves the positions p with
p mod lanes = l; it walks its stretch in windows of a few shards and permutes the samples inside each window by a keyed
permutation that is computed, not stored. So memory grows with the number of shards, every sample comes exactly once per
pass, the state of a loader is one integer, and a rank that owns whole lanes reads only its own shards.

    rank r of W owns the lanes l with l mod W = r;  W must divide the number of lanes
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sharding.errors import InputError
from sharding.files import exists, join, open_read
from sharding.index import index_path, read_index
from sharding.manifest import VOCABULARY, Label, Manifest, Shard, read_manifest, read_vocabulary
from sharding.samples import decode_labels

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Records:
    """Where the samples at some positions lie, one row per position; all arrays have shape (N,)."""

    position: Integers
    dataset: Integers  # index into Plan.folders
    shard: Integers  # index into the shards of that dataset's manifest
    record: Integers  # row of that shard's index
    augmentation: Words  # key for every random choice made about this sample at this position

    def __len__(self) -> int:
        return len(self.position)

    def part(self, start: int, stop: int) -> Records:
        """Rows [start, stop)."""
        cut = slice(start, stop)
        return Records(self.position[cut], self.dataset[cut], self.shard[cut], self.record[cut], self.augmentation[cut])


@dataclass(frozen=True)
class _Segments:
    """Stretches of consecutive records: whole shards, or parts of them when a subset is planned. Arrays of shape (S,)."""

    dataset: Integers
    shard: Integers
    first: Integers
    count: Integers


class Plan:
    """The endless sequence of samples of a run. Make one with `open_plan`."""

    def __init__(
        self,
        folders: Sequence[str],
        manifests: Sequence[Manifest],
        parts: Sequence[_Segments],
        *,
        seed: int,
        weights: Sequence[int],
        lanes: int,
        window: int,
        vocabulary: list[Label],
        kind: str,
    ) -> None:
        self.folders, self.manifests, self.vocabulary, self.kind = list(folders), list(manifests), vocabulary, kind
        self.seed, self.lanes, self.window = seed, lanes, window
        self._sources = [_Source(part, _mix(seed, i), lanes, window) for i, part in enumerate(parts)]
        self._schedule = _interleave(weights)
        facts = (
            [m.fingerprint for m in manifests],
            [_digest(part) for part in parts],
            seed,
            list(weights),
            lanes,
            window,
        )
        self.fingerprint = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    @property
    def samples_per_pass(self) -> int:
        """Samples in one pass over all datasets."""
        return sum(source.total for source in self._sources)

    def shards_of(self, dataset: int) -> tuple[Shard, ...]:
        """The manifest rows of a dataset."""
        return self.manifests[dataset].shards

    def positions(self, start: int, stop: int, rank: int = 0, world_size: int = 1) -> Integers:
        """The positions of [start, stop) that belong to `rank`.

        Raises:
            InputError: when world_size does not divide the number of lanes.
        """
        if self.lanes % world_size:
            possible = [w for w in range(1, self.lanes + 1) if self.lanes % w == 0]
            raise InputError(
                f"the number of ranks must divide the {self.lanes} lanes; found {world_size}, possible: {possible}."
            )
        every = np.arange(start, stop, dtype=np.int64)
        mine: Integers = every[every % self.lanes % world_size == rank]
        return mine

    def at(self, positions: Integers) -> Records:
        """Where the samples at `positions` lie: random access, computed from seed and manifests alone."""
        positions = np.asarray(positions, dtype=np.int64)
        dataset, shard, record = np.empty((3, len(positions)), dtype=np.int64)
        lane, row = positions % self.lanes, positions // self.lanes
        cycle = len(self._schedule)
        place = (
            row + lane
        )  # each lane starts the cycle at its own place, so that every batch holds the sets in proportion
        for number, source in enumerate(self._sources):
            slots = np.flatnonzero(self._schedule == number)
            before = np.searchsorted(slots, np.arange(cycle))  # turns of this source before each place of the cycle
            mine = self._schedule[place % cycle] == number
            served = place // cycle * len(slots) + before[place % cycle]
            at_start = lane // cycle * len(slots) + before[lane % cycle]
            dataset[mine], shard[mine], record[mine] = source.at(lane[mine], (served - at_start)[mine])
        return Records(positions, dataset, shard, record, self._augmentation(positions))

    def in_order(self, start: int, stop: int) -> Records:
        """Samples `start` to `stop` of one pass in the order of folders and keys, each exactly once: for evaluation."""
        positions = np.arange(start, min(stop, self.samples_per_pass), dtype=np.int64)
        every = [
            np.concatenate([getattr(s.segments, f) for s in self._sources])
            for f in ("dataset", "shard", "first", "count")
        ]
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(every[3])])
        segment = np.searchsorted(starts, positions, side="right") - 1
        record = every[2][segment] + positions - starts[segment]
        return Records(positions, every[0][segment], every[1][segment], record, self._augmentation(positions))

    def _augmentation(self, positions: Integers) -> Words:
        return _hash(np.uint64(_mix(self.seed, 0xA06)), positions.astype(np.uint64))


class _Source:
    """One dataset's endless sequence, addressed by (lane, index within the lane)."""

    def __init__(self, segments: _Segments, seed: int, lanes: int, window: int) -> None:
        self.segments, self.seed, self.lanes, self.window = segments, seed, lanes, window
        self.total = int(segments.count.sum())
        self._layout = functools.lru_cache(maxsize=8)(self._lay_out)

    def _lay_out(self, number: int) -> tuple[Integers, Integers, int]:
        """Pass `number`: the order of the segments, their starts on a circle walked twice (2S + 1), the turn of the circle."""
        numbers = np.arange(len(self.segments.count), dtype=np.uint64)
        order = np.argsort(_hash(np.uint64(_mix(self.seed, number)), numbers), kind="stable")
        turn = _mix(self.seed, number, 0x70) % self.total
        counts = np.tile(self.segments.count[order], 2)
        return order, np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)]), turn

    def at(self, lane: Integers, index: Integers) -> Integers:
        """Dataset, shard and record of the `index`-th sample that `lane` serves, as an array of shape (3, N)."""
        position = index * self.lanes + lane
        number = position // self.total
        found = np.empty((3, len(position)), dtype=np.int64)
        for one in np.unique(number):
            mine = number == one
            found[:, mine] = self._at_pass(int(one), lane[mine], position[mine])
        return found

    def _at_pass(self, number: int, lane: Integers, position: Integers) -> Integers:
        order, starts, turn = self._layout(number)
        begin = number * self.total  # the first position of this pass; its lane is the first to get a sample
        count, extra = divmod(self.total, self.lanes)
        nth = (lane - begin) % self.lanes  # lanes in the order in which this pass reaches them
        step = (position - begin - nth) // self.lanes
        stretch = turn + nth * count + np.minimum(nth, extra)  # where the lane's part of the circle begins
        end = stretch + count + (nth < extra)
        where = stretch + step
        first = np.searchsorted(starts, stretch, side="right") - 1  # segment in which the lane begins
        segment = np.searchsorted(starts, where, side="right") - 1
        low = first + (segment - first) // self.window * self.window
        high = np.minimum(low + self.window, len(starts) - 1)
        window_start, window_end = np.maximum(starts[low], stretch), np.minimum(starts[high], end)
        keys = _hash(np.uint64(_mix(self.seed, number, 0x31)), window_start.astype(np.uint64))
        where = window_start + _permute(where - window_start, window_end - window_start, keys)
        segment = np.searchsorted(starts, where, side="right") - 1
        chosen = order[segment % len(order)]
        s = self.segments
        return np.stack([s.dataset[chosen], s.shard[chosen], s.first[chosen] + where - starts[segment]])


def open_plan(
    folders: str | Sequence[str],
    *,
    seed: int = 0,
    part: tuple[float, float] = (0.0, 1.0),
    weights: Sequence[int] | None = None,
    per_label: int | None = None,
    lanes: int = 64,
    window: int = 4,
) -> Plan:
    """Plan the order of one or several dataset folders.

    Args:
        folders: dataset folders; a string may hold several, separated by commas.
        seed: every random choice follows from it.
        part: share of the key-sorted sequence, (0.0, 0.95) or (0.95, 1.0): keys are hashes, so it is a random part.
        weights: how many samples of each folder come per turn, exactly; by default all folders are read as one dataset.
        per_label: only so many samples of each class, chosen by the seed.
        lanes: independent stretches; the numbers of ranks that divide it can continue a run. 64 suits up to 64 ranks.
        window: shards whose samples are mixed at a time.

    Raises:
        InputError: for a folder that is no dataset, sets without samples, label names that differ between the folders.
    """
    names = [f.strip() for f in folders.split(",")] if isinstance(folders, str) else list(folders)
    manifests = [read_manifest(name) for name in names]
    vocabularies = [read_vocabulary(name) if exists(join(name, VOCABULARY)) else [] for name in names]
    for name, vocabulary in zip(names, vocabularies, strict=True):
        if [label.name for label in vocabulary] != [label.name for label in vocabularies[0]]:
            raise InputError(
                f"datasets read as one must have the same labels; {name} and {names[0]} differ: build the second with "
                f"--vocabulary {join(names[0], VOCABULARY)}."
            )
    parts = [
        _select(i, name, manifest, part, per_label, seed)
        for i, (name, manifest) in enumerate(zip(names, manifests, strict=True))
    ]
    for name, manifest, segments in zip(names, manifests, parts, strict=True):
        if not segments.count.sum():
            raise InputError(f"a plan needs samples; part {part} of {name} holds none of its {manifest.kept} samples.")
    if weights is None:
        parts, weights = (
            [_Segments(*(np.concatenate(columns) for columns in zip(*map(_columns, parts), strict=True)))],
            [1],
        )
    if len(weights) != len(parts) or min(weights) < 1:
        raise InputError(
            f"weights must be one positive integer for each of the {len(parts)} folders; found {list(weights)}."
        )
    return Plan(
        names,
        manifests,
        parts,
        seed=seed,
        weights=weights,
        lanes=lanes,
        window=window,
        vocabulary=vocabularies[0],
        kind=_kind(names[0], manifests[0]),
    )


def _columns(segments: _Segments) -> tuple[Integers, Integers, Integers, Integers]:
    return segments.dataset, segments.shard, segments.first, segments.count


def _kind(folder: str, manifest: Manifest) -> str:
    """Which member holds the labels: `cls`, `tags.json`, or none."""
    if not manifest.shards:
        return ""
    row = read_index(index_path(join(folder, manifest.shards[0].name)))[0]
    return next((m.extension for m in row if m.extension in ("cls", "tags.json")), "")


def _select(
    dataset: int, folder: str, manifest: Manifest, part: tuple[float, float], per_label: int | None, seed: int
) -> _Segments:
    """The stretches of records that a part, or a few samples of each label, leave of a dataset."""
    counts = np.array([shard.samples for shard in manifest.shards], dtype=np.int64)
    low, high = (math.floor(edge * int(counts.sum()) + 0.5) for edge in part)
    starts = np.cumsum(counts) - counts
    first = np.clip(low - starts, 0, counts)
    last = np.clip(high - starts, 0, counts)
    shard = np.flatnonzero(last > first).astype(np.int64)
    segments = _Segments(np.full_like(shard, dataset), shard, first[shard], (last - first)[shard])
    if per_label is None:
        return segments
    shard, record = _expand(segments)
    labels = read_labels(folder, manifest, shard, record)
    rank = np.argsort(_hash(np.uint64(_mix(seed, 0xFE)), np.arange(len(labels), dtype=np.uint64)), kind="stable")
    chosen = np.sort(np.concatenate([rank[labels[rank] == label][:per_label] for label in np.unique(labels)]))
    ones = np.ones(len(chosen), dtype=np.int64)
    return _Segments(dataset * ones, shard[chosen], record[chosen], ones)


def _expand(segments: _Segments) -> tuple[Integers, Integers]:
    shard = np.repeat(segments.shard, segments.count)
    offset = np.arange(len(shard)) - np.repeat(np.cumsum(segments.count) - segments.count, segments.count)
    return shard, np.repeat(segments.first, segments.count) + offset


def read_labels(folder: str, manifest: Manifest, shard: Integers, record: Integers) -> Integers:
    """The class of each (shard, record), read from the `cls` members.

    Raises:
        InputError: when a sample has no single class.
    """
    labels = np.empty(len(shard), dtype=np.int64)
    for number in np.unique(shard):
        name = manifest.shards[number].name
        rows = read_index(index_path(join(folder, name)))
        with open_read(join(folder, name)) as file:
            for i in np.flatnonzero(shard == number):
                member = next((m for m in rows[record[i]] if m.extension == "cls"), None)
                if member is None:
                    raise InputError(
                        f"a few samples per label need class sets; {name} of {folder} has samples without 'cls'."
                    )
                file.seek(member.offset)
                labels[i] = decode_labels({"cls": file.read(member.size)})[0]
    return labels


def _interleave(weights: Sequence[int]) -> Integers:
    """An exact schedule: weights (6, 4) give a cycle of five with three turns of the first, spread evenly."""
    divisor = math.gcd(*weights)
    turns = [w // divisor for w in weights]
    slots = sorted(((turn + 0.5) / count, source) for source, count in enumerate(turns) for turn in range(count))
    return np.array([source for _, source in slots], dtype=np.int64)


def _mix(*values: int) -> int:
    """One 64-bit word out of several integers."""
    text = ",".join(str(int(v)) for v in values).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _hash(key: Words | np.uint64, value: Words) -> Words:
    """A keyed 64-bit hash of each value (the finaliser of splitmix64, twice)."""
    x = value ^ key
    with np.errstate(over="ignore"):
        for _ in range(2):
            x = x + np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31)) ^ key
    return x


def hashed_uniform(keys: Words, draws: int) -> NDArray[np.float64]:
    """`draws` numbers in [0, 1) for each key, of shape (N, draws): the random choices about a sample, addressed not drawn."""
    words = _hash(keys[:, None], np.arange(draws, dtype=np.uint64)[None, :])
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _permute(index: Integers, size: Integers, key: Words) -> Integers:
    """A keyed permutation of range(size), element by element: a Feistel network on the next power of four, walked until the
    result falls inside the range (Black & Rogaway 2002, cycle walking)."""
    half = np.maximum(1, (np.ceil(np.log2(np.maximum(size, 2))).astype(np.int64) + 1) // 2).astype(np.uint64)
    mask = (np.uint64(1) << half) - np.uint64(1)
    value, limit = index.astype(np.uint64), size.astype(np.uint64)
    todo = np.ones(len(value), dtype=bool)
    while todo.any():
        v, h, m, k = value[todo], half[todo], mask[todo], key[todo]
        left, right = v >> h, v & m
        for turn in range(4):
            left, right = right, left ^ (_hash(k + np.uint64(turn), right) & m)
        value[todo] = left << h | right
        todo[todo] = value[todo] >= limit[todo]
    return value.astype(np.int64)


def _digest(segments: _Segments) -> str:
    return hashlib.sha256(np.stack(_columns(segments)).tobytes()).hexdigest()
