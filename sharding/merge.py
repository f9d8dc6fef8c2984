"""Several datasets of one job become one, with the bytes that a single build from all their inputs would have given.

Nothing is decoded: samples are copied in the order of their keys into the ranges of the new number of shards. Label ids
are rewritten where the vocabularies differ. Each finished shard leaves a marker and the manifest comes last, so that an
interrupted merge goes on where it stopped.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import heapq
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sharding import __version__
from sharding.errors import InputError
from sharding.files import (
    TEMPORARY,
    exists,
    join,
    list_files,
    open_atomic,
    open_read,
    read_bytes,
    remove,
    size_of,
    write_atomic,
)
from sharding.index import index_path
from sharding.manifest import (
    MANIFEST,
    VOCABULARY,
    Label,
    Manifest,
    Shard,
    read_manifest,
    vocabulary_bytes,
    write_manifest,
)
from sharding.order import ADOPTED, REJECTS, Row, num_ranges, rows_in_order
from sharding.plan import Plan, open_plan
from sharding.progress import Progress
from sharding.samples import KEY_DIGITS, Sample, decode_labels, make_key
from sharding.stream import read_sample
from sharding.tar import write_shard

MARKERS = ".markers"
_SHARD = re.compile(r"shard-\d{6,}\.(tar|idx)")


@dataclass(frozen=True)
class _Merge:
    """What a merge is: its inputs, the new labels, the id in them of each label of each input, the manifest's options."""

    plans: list[Plan]
    labels: list[Label]
    ids: list[list[int]]
    options: dict[str, object]
    read: int
    num_shards: int

    @property
    def digest(self) -> str:
        """Changes when the result would."""
        facts = [__version__, [plan.manifests[0].fingerprint for plan in self.plans], self.options, self.num_shards]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def merge(folders: Sequence[str], output: str, shards: int | None = None, samples_per_shard: int | None = None) -> bool:
    """Write the dataset `output`; returns False when it was there already, complete.

    Of samples with one source the first folder's is kept, the others are rejects (`duplicate_source`).

    Args:
        shards, samples_per_shard: as for the jobs; by default what the first folder was built with.

    Raises:
        InputError: when the folders are not of one job, no vocabulary holds all labels, or `output` holds something else.
    """
    work = _plan_merge(folders, shards, samples_per_shard)
    if exists(join(output, MANIFEST)):
        if _is_result(output, work):
            return False
        raise InputError(f"--output must be a new or empty folder; {output} holds another dataset. Give another one.")
    for name in list_files(output, hidden=True) if exists(output) else []:
        ours = name.startswith(MARKERS + "/") or TEMPORARY in name or _SHARD.fullmatch(name)
        if not ours and name not in (REJECTS, VOCABULARY):
            raise InputError(f"--output must be a new or empty folder; {output} holds {name}. Give another one.")
    done = 0
    markers = []
    with Progress("merge", sum(plan.samples_per_pass for plan in work.plans)) as progress:
        for number in range(work.num_shards):
            markers.append(_write_range(work, output, number))
            done += (markers[-1].shard.samples if markers[-1].shard else 0) + len(markers[-1].duplicates)
            progress.update(done)
    _commit(work, output, markers)
    return True


def _plan_merge(folders: Sequence[str], shards: int | None, samples_per_shard: int | None) -> _Merge:
    if len(folders) < 2:
        raise InputError(f"merge takes two datasets or more; found {len(folders)}. See omnishard shards merge --help.")
    plans = [open_plan([folder]) for folder in folders]
    manifests = [plan.manifests[0] for plan in plans]
    for folder, plan, manifest in zip(folders, plans, manifests, strict=True):
        if manifest.job == ADOPTED:
            raise InputError(
                f"merge needs sets written by a job, whose keys are hashes; {folder} is of adopted tars. Read both as one "
                f"instead: --shards {','.join(folders)}."
            )
        if (manifest.job, plan.kind) != (manifests[0].job, plans[0].kind):
            raise InputError(
                f"merged sets must be of one job; {folders[0]} is of {manifests[0].job}, {folder} of {manifest.job}. Build "
                "them by the same job."
            )
    largest = max(plans, key=lambda plan: len(plan.vocabulary))
    position = {label.name: label.id for label in largest.vocabulary}
    members: dict[str, dict[str, None]] = {name: {} for name in position}
    for folder, plan in zip(folders, plans, strict=True):
        for label in plan.vocabulary:
            if label.name not in position:
                raise InputError(
                    f"one of the vocabularies must hold all labels; {folder} has {label.name!r}, {largest.folders[0]} has not. "
                    f"Build the second set with --vocabulary {join(folders[0], VOCABULARY)}."
                )
            members[label.name] |= dict.fromkeys(label.members)
    options = _common_options(manifests)
    if shards or samples_per_shard:
        options["shards"] = shards
        options["samples_per_shard"] = samples_per_shard or manifests[0].options.get("samples_per_shard")
    read = sum(manifest.read for manifest in manifests)
    num_shards = num_ranges(dataclasses.replace(manifests[0], options=options, read=read))
    if num_shards is None or num_shards < 1:
        raise InputError(
            f"--shards and --samples-per-shard must be at least 1, or those of {folders[0]}; found {num_shards}."
        )
    return _Merge(
        plans,
        [dataclasses.replace(label, members=tuple(members[label.name])) for label in largest.vocabulary],
        [[position[label.name] for label in plan.vocabulary] for plan in plans],
        options,
        read,
        num_shards,
    )


def _common_options(manifests: Sequence[Manifest]) -> dict[str, object]:
    """The options that the sets were built with; where they differ, the list of them in the order of the sets. How the sets
    were cut says nothing about the result: there the first set's words count."""
    options: dict[str, object] = {}
    for name in dict.fromkeys(itertools.chain.from_iterable(manifest.options for manifest in manifests)):
        values = [manifest.options.get(name) for manifest in manifests]
        same = name in ("shards", "samples_per_shard") or all(value == values[0] for value in values)
        options[name] = values[0] if same else values
    return options


@dataclass
class _Marker:
    """A finished range: the digest of the merge, the manifest row, the sources that came twice, samples by label."""

    digest: str
    shard: Shard | None
    duplicates: list[str]
    labels: dict[str, int]


def _write_range(work: _Merge, output: str, number: int) -> _Marker:
    """Write shard `number`, or find it written already."""
    path, name = join(output, MARKERS, f"shard-{number:06d}.json"), f"shard-{number:06d}.tar"
    if exists(path):
        fields = json.loads(read_bytes(path))
        shard = Shard(**fields["shard"]) if fields["shard"] else None
        marker = _Marker(fields["digest"], shard, fields["duplicates"], fields["labels"])
        if marker.digest == work.digest and (shard is None or _is_there(output, shard)):
            return marker
    marker = _Marker(work.digest, None, [], {})
    samples = _samples(work, number, marker)
    first = next(samples, None)
    if first:
        marker.shard = write_shard(output, name, itertools.chain([first], samples))
    write_atomic(path, json.dumps(dataclasses.asdict(marker)).encode())
    return marker


def _is_there(output: str, shard: Shard) -> bool:
    path = join(output, shard.name)
    return exists(path) and size_of(path) == shard.bytes and exists(index_path(path))


def _samples(work: _Merge, number: int, marker: _Marker) -> Iterator[Sample]:
    """The samples of a range by key, each once; duplicates and labels are noted on the way."""
    rows = [_places(plan, i, number, work.num_shards) for i, plan in enumerate(work.plans)]
    last = ""
    for key, i, row in heapq.merge(*rows, key=lambda place: place[:2]):
        sample = read_sample(work.plans[i], 0, row.shard, row.record)
        if key == last:
            marker.duplicates.append(str(json.loads(sample.members["json"])["source"]))
            continue
        last = key
        sample = _renumber(sample, work.ids[i])
        for label in decode_labels(sample.members):
            marker.labels[str(label)] = marker.labels.get(str(label), 0) + 1
        yield sample


def _places(plan: Plan, number: int, shard: int, num_shards: int) -> Iterator[tuple[str, int, Row]]:
    """Key, number of the input, and place of its samples in one range of the result."""
    low, high = (f"{-(-(n << 4 * KEY_DIGITS) // num_shards):0{KEY_DIGITS}x}" for n in (shard, shard + 1))
    for row in rows_in_order(plan, low, high if shard + 1 < num_shards else None):
        yield row.key, number, row


def _renumber(sample: Sample, ids: Sequence[int]) -> Sample:
    """The sample with the new label ids; the same bytes when they are the old ones."""
    labels = decode_labels(sample.members)
    new = [ids[label] for label in labels]
    if new == labels:
        return sample
    if "cls" in sample.members:
        return Sample(sample.key, sample.members | {"cls": str(new[0]).encode()})
    return Sample(sample.key, sample.members | {"tags.json": json.dumps(sorted(new)).encode()})


def _commit(work: _Merge, output: str, markers: Sequence[_Marker]) -> None:
    """Rejects, vocabulary, and the manifest last."""
    rejected: collections.Counter[str] = collections.Counter()
    labels: collections.Counter[str] = collections.Counter()
    for marker in markers:
        labels.update(marker.labels)
    with open_atomic(join(output, REJECTS)) as file:
        for reason, line in _merged_rejects(work, markers):
            rejected[reason] += 1
            file.write(line)
    shards = tuple(marker.shard for marker in markers if marker.shard)
    vocabulary = None
    if work.labels:
        data = vocabulary_bytes([dataclasses.replace(label, count=labels[str(label.id)]) for label in work.labels])
        write_atomic(join(output, VOCABULARY), data)
        vocabulary = {"name": VOCABULARY, "sha256": hashlib.sha256(data).hexdigest(), "labels": len(work.labels)}
    manifest = Manifest(
        job=work.plans[0].manifests[0].job,
        options=work.options,
        read=work.read,
        kept=sum(shard.samples for shard in shards),
        rejected=dict(sorted(rejected.items())),
        shards=shards,
        vocabulary=vocabulary,
    )
    named = {name for shard in shards for name in (shard.name, shard.name.removesuffix("tar") + "idx")}
    for name in list_files(output, hidden=True):
        if "/" not in name and (TEMPORARY in name or (_SHARD.fullmatch(name) and name not in named)):
            remove(join(output, name))
    write_manifest(output, manifest)
    remove(join(output, MARKERS))


def _merged_rejects(work: _Merge, markers: Sequence[_Marker]) -> Iterator[tuple[str, bytes]]:
    """Reason and line of every reject, by key; of one key those of earlier sets first."""
    duplicates = (
        (make_key(source), len(work.plans), "duplicate_source", _duplicate(source))
        for marker in markers
        for source in marker.duplicates
    )
    inputs = [_rejects(plan.folders[0], i) for i, plan in enumerate(work.plans)]
    for _, _, reason, line in heapq.merge(*inputs, duplicates, key=lambda row: row[:2]):
        yield reason, line


def _rejects(folder: str, number: int) -> Iterator[tuple[str, int, str, bytes]]:
    if exists(join(folder, REJECTS)):
        with open_read(join(folder, REJECTS)) as file:
            for line in file:
                row = json.loads(line)
                yield make_key(row["source"]), number, row["reason"], line


def _duplicate(source: str) -> bytes:
    row = {
        "source": source,
        "stage": "join",
        "reason": "duplicate_source",
        "message": "",
        "sha256": "",
        "transient": False,
    }
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def _is_result(output: str, work: _Merge) -> bool:
    """True when the dataset in `output` is what this merge would write: told from manifests and indices."""
    manifest, made = read_manifest(output), work.plans[0].manifests[0]
    if (manifest.job, manifest.options, manifest.read) != (made.job, work.options, work.read):
        return False
    inputs = heapq.merge(*(rows_in_order(plan) for plan in work.plans), key=lambda row: row.key)
    expected = (key for key, _ in itertools.groupby(inputs, key=lambda row: row.key))
    keys = (row.key for row in rows_in_order(open_plan([output])))
    return all(a == b for a, b in itertools.zip_longest(expected, keys))
