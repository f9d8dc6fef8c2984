"""WriteShards: references to photos in, a finished dataset folder out, the same bytes whatever runs it.

A record travels with its verdict to the shard that owns its key: references are shuffled, never pixels, and the one DoFn
that gets a shard's references reads, decodes, shrinks and writes all of it. Each finished shard leaves a marker; the last
step reads the markers, holds that every record read was kept or rejected, and makes the folder data by its manifest.

    DIR/.markers/shard-000000.json   digest of the shard's inputs, its manifest row, its rejects, its statistics
    DIR/.markers/shard-000000.at     records done so far, for the progress line

A rerun takes over the shards whose marker has the same digest. It supposes that photos once stored did not change in
between; rejected files are looked at again, since a user may have mended them.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics.metric import Metrics

from pipelines.dataset_page import Statistics, dataset_page
from pipelines.images import REASONS, Prepared, Rejected, prepare_image
from pipelines.options import Photos
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
from sharding.manifest import VOCABULARY, Label, Manifest, Shard, vocabulary_bytes, write_manifest
from sharding.order import REJECTS
from sharding.samples import Sample, make_key, shard_of
from sharding.tar import write_shard

MARKERS, REPORT = ".markers", "report.html"
SHARD_NAME = re.compile(r"shard-\d{6,}\.(tar|idx)")
_ALWAYS_ALLOWED = 10  # damaged records that no default budget minds: 1 % of a small set would be none


@dataclass(frozen=True)
class Reference:
    """A record before its pixels: source id (path below the root), label ids, caption, or the verdict already passed on it."""

    source: str
    labels: tuple[int, ...] = ()
    text: str | None = None
    reason: str = ""
    message: str = ""


class WriteShards(beam.PTransform):  # type: ignore[misc]
    """PCollection of references -> dataset folder; the result holds one element, the number of samples kept.

    `labels` is a PCollection of one list of labels, whose position is their id. `label_member` is `cls` (one label per
    sample) or `tags.json` (any number).
    """

    def __init__(self, options: Photos, facts: dict[str, object], label_member: str, labels: beam.PCollection) -> None:
        super().__init__()
        self.options, self.facts, self.label_member, self.labels = options, facts, label_member, labels

    def expand(self, references: beam.PCollection) -> beam.PCollection:
        """Count, assign to shards, write each shard, commit."""
        read = references | "CountRecords" >> beam.combiners.Count.Globally()
        num_shards = read | "ChooseNumShards" >> beam.Map(count_shards, self.options)
        written = (
            references
            | "AssignShard"
            >> beam.Map(assign_shard, beam.pvalue.AsSingleton(num_shards)).with_output_types(tuple[int, str])
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.ParDo(_WriteShard(self.options, self.facts, self.label_member))
        )
        return (
            references.pipeline
            | "Once" >> beam.Create([0])
            | "Commit"
            >> beam.Map(
                lambda _, read, labels, written: commit(self.options, self.facts, read, labels, written),
                beam.pvalue.AsSingleton(read),
                beam.pvalue.AsSingleton(self.labels),
                beam.pvalue.AsIter(written),
            )
        )


class _WriteShard(beam.DoFn):  # type: ignore[misc]
    """(shard number, references) -> shard number, when the shard and its marker are in place."""

    def __init__(self, options: Photos, facts: dict[str, object], label_member: str) -> None:
        self.options, self.facts, self.label_member = options, facts, label_member

    def setup(self) -> None:
        warnings.filterwarnings("ignore", module="PIL")  # what Pillow merely warns of is either mended or a reject here
        self.threads = self.options.threads or os.cpu_count() or 1
        self.pool = concurrent.futures.ThreadPoolExecutor(self.threads, thread_name_prefix="decode")

    def teardown(self) -> None:
        self.pool.shutdown(cancel_futures=True)

    def process(self, element: tuple[int, Iterable[str]]) -> Iterator[int]:
        number, references = element
        rejected = write_one(number, references, self.options, self.facts, self.label_member, self.pool, self.threads)
        for reason, count in rejected.items():
            Metrics.counter("rejected", reason).inc(count)
        yield number


def count_shards(read: int, options: Photos) -> int:
    """The number asked for, else enough for `samples_per_shard`."""
    return options.shards or max(1, -(-read // options.samples_per_shard))


def assign_shard(reference: Reference, num_shards: int) -> tuple[int, str]:
    """Shard number and the reference as one line of JSON, which sorts and hashes the same everywhere."""
    line = json.dumps(dataclasses.asdict(reference), sort_keys=True, separators=(",", ":"))
    return shard_of(make_key(reference.source), num_shards), line


def write_one(
    number: int,
    lines: Iterable[str],
    options: Photos,
    facts: dict[str, object],
    label_member: str,
    pool: concurrent.futures.Executor,
    ahead: int,
) -> collections.Counter[str]:
    """Write shard `number` of these references, or find it written already; returns its rejects by reason."""
    keyed = [(make_key(json.loads(line)["source"]), line) for line in lines]
    keyed.sort()
    digest = hashlib.sha256(json.dumps([__version__, facts, label_member, keyed], sort_keys=True).encode()).hexdigest()
    name, marker_path = f"shard-{number:06d}.tar", _marker(options.output, number)
    if exists(marker_path):
        marker = json.loads(read_bytes(marker_path))
        if marker["digest"] == digest and _still_holds(marker, options):
            _say_done(marker_path, len(keyed))
            return collections.Counter(row["reason"] for row in marker["rejects"])

    rejects: list[dict[str, object]] = []
    statistics = Statistics()
    samples = _samples(keyed, options, label_member, pool, ahead, rejects, statistics, marker_path)
    first = next(samples, None)
    shard = write_shard(options.output, name, itertools.chain([first], samples)) if first else None
    marker = {
        "digest": digest,
        "shard": dataclasses.asdict(shard) if shard else None,
        "rejects": rejects,
        "statistics": vars(statistics),
    }
    write_atomic(marker_path, json.dumps(marker).encode())
    return collections.Counter(str(row["reason"]) for row in rejects)


def _samples(
    keyed: list[tuple[str, str]],
    options: Photos,
    label_member: str,
    pool: concurrent.futures.Executor,
    ahead: int,
    rejects: list[dict[str, object]],
    statistics: Statistics,
    marker_path: str,
) -> Iterator[Sample]:
    """The kept samples by key; what is rejected and what was done is noted on the way."""
    told = time.monotonic()
    references = _first_of_each(keyed)
    prepared = _in_order(pool, lambda reference: _prepare(reference, options), references, 2 * ahead)
    for done, (reference, photo) in enumerate(prepared, 1):
        if isinstance(photo, Prepared):
            statistics.add(reference.source, reference.labels, photo)
            yield Sample(make_key(reference.source), _members(reference, photo, label_member))
        else:
            rejects.append(photo)
        if done == len(keyed) or time.monotonic() > told + 1:
            told = time.monotonic()
            _say_done(marker_path, done)


def _say_done(marker_path: str, done: int) -> None:
    write_atomic(marker_path.removesuffix(".json") + ".at", str(done).encode())


def _first_of_each(keyed: list[tuple[str, str]]) -> Iterator[Reference]:
    """The references by key; from the second of one source on they are rejects."""
    before = ""
    for _, line in keyed:
        fields = json.loads(line)
        reference = Reference(**fields | {"labels": tuple(fields["labels"])})
        if reference.source == before:
            reference = Reference(reference.source, reason="duplicate_source", message="")
        before = reference.source
        yield reference


def _prepare(reference: Reference, options: Photos) -> tuple[Reference, Prepared | dict[str, object]]:
    """The stored photo, or its reject row."""
    data = b""
    try:
        if reference.reason:
            raise Rejected(reference.reason, reference.message)
        data = _read_photo(reference.source, options)
        photo = prepare_image(
            data,
            short_side=options.short_side,
            quality=options.quality,
            max_pixels=options.max_pixels,
            max_bytes=options.max_bytes,
        )
    except Rejected as verdict:
        return reference, {
            "source": reference.source,
            "stage": REASONS[verdict.reason].stage,
            "reason": verdict.reason,
            "message": verdict.message,
            "sha256": hashlib.sha256(data).hexdigest() if data else "",
            "transient": REASONS[verdict.reason].transient,
        }
    return reference, photo


def _read_photo(source: str, options: Photos) -> bytes:
    try:
        with open_read(join(options.images, source)) as file:
            data = file.read(options.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Rejected("missing_file", "no such file below --images") from None
    except Exception as error:  # storage clients have errors of their own; the row says so, and a rerun tries again
        raise Rejected("read_error", getattr(error, "strerror", None) or type(error).__name__) from None
    if len(data) > options.max_bytes:
        raise Rejected("too_many_bytes", f"more than {options.max_bytes} bytes")
    return data


def _members(reference: Reference, photo: Prepared, label_member: str) -> dict[str, bytes]:
    facts: dict[str, object] = {
        "source": reference.source,
        "width": photo.width,
        "height": photo.height,
        "original": photo.original,
        "format": photo.format,
        "converted": photo.converted,
    }
    if reference.text is not None:
        facts["text"] = reference.text
    labels = str(reference.labels[0]) if label_member == "cls" else json.dumps(sorted(reference.labels))
    described = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
    return {"jpg": photo.jpeg, "json": described.encode(), label_member: labels.encode()}


def _in_order(
    pool: concurrent.futures.Executor,
    work: Callable[[Reference], tuple[Reference, Prepared | dict[str, object]]],
    references: Iterator[Reference],
    ahead: int,
) -> Iterator[tuple[Reference, Prepared | dict[str, object]]]:
    """The results in the order of the references, with at most `ahead` of them decoded before they are asked for."""
    waiting = collections.deque(pool.submit(work, reference) for reference in itertools.islice(references, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(work, reference) for reference in itertools.islice(references, 1))
        yield result


def _still_holds(marker: dict[str, object], options: Photos) -> bool:
    """True when the marker's tar is there, and the files it rejected are as they were."""
    if marker["shard"]:
        shard = Shard(**marker["shard"])  # type: ignore[arg-type]
        path = join(options.output, shard.name)
        if not exists(path) or size_of(path) != shard.bytes or not exists(index_path(path)):
            return False
    for row in marker["rejects"]:  # type: ignore[attr-defined]
        if REASONS[row["reason"]].stage in ("read", "decode"):
            again = _prepare(Reference(row["source"]), options)[1]
            if again != row or row["transient"]:
                return False
    return True


def commit(options: Photos, facts: dict[str, object], read: int, labels: list[Label], written: Iterable[int]) -> int:
    """Make the written shards data: rejects, vocabulary, page, and the manifest last; returns the number of samples.

    Raises:
        InputError: when more records are damaged than the budget allows, or nothing was kept. The shards stay for a rerun.
    """
    output, numbers = options.output, sorted(set(written))
    rejected: collections.Counter[str] = collections.Counter()
    statistics = Statistics()
    shards: list[Shard] = []
    first_rejects: list[dict[str, object]] = []
    example = ""
    with open_atomic(join(output, REJECTS)) as file:
        for number in numbers:
            marker = json.loads(read_bytes(_marker(output, number)))
            shards += [Shard(**marker["shard"])] if marker["shard"] else []
            statistics.merge(marker["statistics"])
            for row in marker["rejects"]:
                rejected[row["reason"]] += 1
                first_rejects += [row] if len(first_rejects) < 200 else []
                example = example or (row["source"] if REASONS[row["reason"]].damage else "")
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    kept = sum(shard.samples for shard in shards)
    _check_budget(options, read, kept, rejected, example)

    counted = [dataclasses.replace(label, count=statistics.labels.get(str(label.id), 0)) for label in labels]
    vocabulary = vocabulary_bytes(counted)
    write_atomic(join(output, VOCABULARY), vocabulary)
    manifest = Manifest(
        job=job_of(options),
        options=facts,
        read=read,
        kept=kept,
        rejected=dict(sorted(rejected.items())),
        shards=tuple(shards),
        vocabulary={"name": VOCABULARY, "sha256": hashlib.sha256(vocabulary).hexdigest(), "labels": len(labels)},
    )
    _remove_strays(output, {name for shard in shards for name in (shard.name, index_path(shard.name))})
    write_atomic(join(output, REPORT), dataset_page(output, manifest, counted, statistics, first_rejects).encode())
    write_manifest(output, manifest)
    remove(join(output, MARKERS))
    return kept


def _check_budget(options: Photos, read: int, kept: int, rejected: collections.Counter[str], example: str) -> None:
    damaged = {reason: count for reason, count in rejected.most_common() if REASONS[reason].damage}
    total, share = sum(damaged.values()), options.max_reject_share
    allowed = max(_ALWAYS_ALLOWED, 0.01 * read) if share is None else share * read
    by_reason = ", ".join(f"{reason} {count}" for reason, count in rejected.most_common())
    path = join(options.output, REJECTS)
    if total > allowed:
        limit = f"{share:.2%}" if share is not None else f"1 % and {_ALWAYS_ALLOWED} records"
        raise InputError(
            f"{total} of {read} records ({total / read:.1%}) are damaged, more than {limit}: "
            f"{', '.join(f'{reason} {count}' for reason, count in damaged.items())}, e.g. {example}; see {path}; "
            "raise --max-reject-share or mend the source."
        )
    if not kept:
        raise InputError(
            f"a dataset has at least one sample; all {read} records were rejected: {by_reason}; see {path}."
        )


def _remove_strays(output: str, named: set[str]) -> None:
    """What an earlier, interrupted run left: shards that the manifest does not name, and unfinished files."""
    for name in list_files(output, hidden=True):
        if "/" not in name and (TEMPORARY in name or (SHARD_NAME.fullmatch(name) and name not in named)):
            remove(join(output, name))


def list_photos(images: str) -> Iterator[Reference]:
    """A reference for each file below the folder; a name that is no UTF-8 is a reject."""
    for source in list_files(images):
        try:
            source.encode()
            yield Reference(source)
        except UnicodeEncodeError:
            shown = source.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            yield Reference(shown, reason="bad_name", message="rename the file")


def job_of(options: Photos) -> str:
    """Name of the job that these options are for: `hashtags` for Hashtags."""
    return type(options).__name__.lower()


def _marker(output: str, number: int) -> str:
    return join(output, MARKERS, f"shard-{number:06d}.json")
