"""Is a dataset folder what its manifest says? Every claim is held against the bytes; each difference is one finding.

Shards that were looked through are noted in a file of the cache folder, so that an interrupted verification goes on where
it stopped; the note counts only while the shard's size and time of change stay the same, and goes when all is done.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from sharding.adopt import checksum
from sharding.errors import InputError
from sharding.files import exists, is_local, join, list_files, open_read, read_bytes, remove
from sharding.index import index_path, read_index
from sharding.manifest import VOCABULARY, Manifest, Shard, fingerprint_of, read_manifest, read_vocabulary
from sharding.order import ADOPTED, REJECTS, num_ranges
from sharding.progress import Progress
from sharding.samples import KEY_DIGITS, shard_of
from sharding.scan import scan_tar

_BUILT = re.compile(r"shard-(\d{6,})\.tar")
_KEY = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")


@dataclass(frozen=True)
class Finding:
    """One broken rule: the shard (or file), the key where there is one, the rule, what was found."""

    shard: str
    key: str
    rule: str
    found: str

    def __str__(self) -> str:
        shown = [
            part.encode("utf-8", "backslashreplace").decode() for part in (self.shard, self.key, self.rule, self.found)
        ]
        return "\t".join(part if part.isprintable() else repr(part) for part in shown)


@dataclass
class _Looked:
    """What looking through one shard gave."""

    findings: list[Finding] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # label id as text -> samples
    decoded: int = 0


@dataclass(frozen=True)
class Verdict:
    """The result of a verification."""

    samples: int
    shards: int
    decoded: int
    findings: tuple[Finding, ...]


def verify(
    folder: str,
    decode: int | None = None,
    threads: int | None = None,
    tell: Callable[[Finding], None] = lambda finding: None,
) -> Verdict:
    """Look through the whole dataset; every finding is told at once.

    Args:
        decode: how many samples to decode, spread evenly over the set; all by default.

    Raises:
        InputError: when the folder has no manifest that can be read.
    """
    manifest = read_manifest(folder)
    kept = max(1, manifest.kept)
    wanted = kept if decode is None else decode
    notes = _notes_path(folder, manifest, wanted)
    known = _read_notes(notes)
    findings: list[Finding] = []
    labels: collections.Counter[str] = collections.Counter()
    decoded = 0

    def add(new: list[Finding]) -> None:
        findings.extend(new)
        for finding in new:
            tell(finding)

    add(_check_folder(folder, manifest))
    lock = threading.Lock()
    os.makedirs(os.path.dirname(notes), exist_ok=True)
    with (
        concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool,
        Progress("verify", manifest.kept) as progress,
        open(notes, "a", encoding="utf-8") as file,
    ):
        seen = 0

        def tick() -> None:
            nonlocal seen
            with lock:
                seen += 1
                progress.update(seen)

        def look(shard: Shard, first: int) -> _Looked:
            stamp = _stamp(join(folder, shard.name))
            before = known.get(shard.name)
            if before and before["stamp"] == stamp:
                with lock:
                    nonlocal seen
                    seen += shard.samples
                return _Looked([Finding(**f) for f in before["findings"]], before["labels"], before["decoded"])
            result = _look_through(
                folder, manifest, shard, lambda n: (first + n + 1) * wanted // kept > (first + n) * wanted // kept, tick
            )
            with lock:
                file.write(json.dumps({"shard": shard.name, "stamp": stamp, **asdict(result)}) + "\n")
                file.flush()
            return result

        waiting: collections.deque[concurrent.futures.Future[_Looked]] = collections.deque()
        first = 0
        try:
            for shard in manifest.shards:
                waiting.append(pool.submit(look, shard, first))
                first += shard.samples
                if len(waiting) < 64:
                    continue
                decoded += _take(waiting.popleft().result(), add, labels)
            while waiting:
                decoded += _take(waiting.popleft().result(), add, labels)
        finally:
            pool.shutdown(cancel_futures=True)
    add(_check_keys(folder, manifest))
    add(_check_labels(folder, manifest, labels))
    add(_check_rejects(folder, manifest))
    remove(notes)
    return Verdict(manifest.kept, len(manifest.shards), decoded, tuple(findings))


def _take(looked: _Looked, add: Callable[[list[Finding]], None], labels: collections.Counter[str]) -> int:
    add(looked.findings)
    labels.update(looked.labels)
    return looked.decoded


def _look_through(
    folder: str, manifest: Manifest, shard: Shard, decode: Callable[[int], bool], tick: Callable[[], None]
) -> _Looked:
    """Checksum, index and every record of one shard."""
    looked = _Looked()
    path, name = join(folder, shard.name), shard.name

    def note(key: str, rule: str, found: str) -> None:
        looked.findings.append(Finding(name, key, rule, found))

    if not exists(path):
        note("", "missing", "the manifest names this shard, but it is not there")
        return looked
    size, digest = checksum(path)
    if size != shard.bytes:
        note("", "bytes", f"{size}, the manifest says {shard.bytes}")
    if digest != shard.sha256:
        note("", "sha256", f"{digest}, the manifest says {shard.sha256}")
    rows = []
    try:
        rows = read_index(index_path(path))
        if len(rows) != shard.samples:
            note("", "index", f"{len(rows)} samples, the manifest says {shard.samples}")
    except FileNotFoundError:
        note("", "index", "there is no .idx beside the shard")
    except (ValueError, IndexError) as error:
        note("", "index", str(error))

    listed, held = set(rows), []
    ranges, built = num_ranges(manifest), _BUILT.fullmatch(name)
    labels: collections.Counter[str] = collections.Counter()
    for number, found in enumerate(scan_tar(path, decode)):
        if manifest.job == ADOPTED and found.members not in listed:
            continue  # left out of the index when the set was adopted, with a reject row
        tick()
        looked.decoded += decode(number)
        if found.reason:
            note(found.key, found.reason, found.message)
        if found.reason != "shard_short":
            held.append(found.members)
        labels.update(map(str, found.labels))
        if ranges and built and _KEY.fullmatch(found.key) and shard_of(found.key, ranges) != int(built[1]):
            note(found.key, "range", f"the key belongs to shard {shard_of(found.key, ranges)} of {ranges}")
    looked.labels = dict(labels)
    if rows and held != rows:
        differing = next(
            (i for i, (a, b) in enumerate(zip(held, rows, strict=False)) if a != b), min(len(held), len(rows))
        )
        note(
            (held[differing:] or rows[differing:])[0][0].key,
            "index",
            f"record {differing} lies elsewhere in the tar than the index says; the tar holds {len(held)} samples",
        )
    return looked


def _check_folder(folder: str, manifest: Manifest) -> list[Finding]:
    """The manifest's own sums, and tars that it does not name."""
    stored, rejected = sum(shard.samples for shard in manifest.shards), sum(manifest.rejected.values())
    findings = []
    if manifest.kept != stored or manifest.read != manifest.kept + rejected:
        found = f"read {manifest.read}, kept {manifest.kept}, rejected {rejected}, in shards {stored}"
        findings.append(Finding("manifest.json", "", "counts", found))
    if manifest.fingerprint != fingerprint_of(manifest.shards, manifest.vocabulary):
        findings.append(
            Finding("manifest.json", "", "fingerprint", f"{manifest.fingerprint} is not that of its shards")
        )
    named = {shard.name for shard in manifest.shards}
    if manifest.job != ADOPTED:
        strays = [name for name in list_files(folder) if name.endswith(".tar") and name not in named]
        findings += [Finding(name, "", "stray", "the manifest does not name this shard") for name in strays]
    return findings


def _check_keys(folder: str, manifest: Manifest) -> list[Finding]:
    """Built sets: keys ascend from the first shard to the last. Adopted sets: no key comes twice."""
    findings, last, seen = [], "", set[str]()
    for shard in manifest.shards:
        try:
            keys = [row[0].key for row in read_index(index_path(join(folder, shard.name)))]
        except (OSError, ValueError, IndexError):
            continue  # told already
        for key in keys:
            if manifest.job == ADOPTED:
                if key in seen:
                    findings.append(Finding(shard.name, key, "duplicate_key", "another shard has this key"))
                seen.add(key)
            elif key == last:
                findings.append(Finding(shard.name, key, "duplicate_key", "the key comes twice"))
            elif key < last:
                findings.append(Finding(shard.name, key, "order", f"the key comes after {last}"))
            last = key
    return findings


def _check_labels(folder: str, manifest: Manifest, counts: collections.Counter[str]) -> list[Finding]:
    if manifest.vocabulary is None:
        return []
    try:
        data = read_bytes(join(folder, VOCABULARY))
        names = read_vocabulary(folder)
    except (OSError, ValueError) as error:
        return [Finding(VOCABULARY, "", "vocabulary", str(error))]
    findings = []
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.vocabulary.get("sha256"):
        findings.append(
            Finding(VOCABULARY, "", "sha256", f"{digest}, the manifest says {manifest.vocabulary.get('sha256')}")
        )
    outside = sorted(int(label) for label in counts if int(label) >= len(names))
    if outside:
        found = f"samples carry the label {outside[0]}, the vocabulary has {len(names)}"
        findings.append(Finding(VOCABULARY, "", "labels", found))
    findings += [
        Finding(
            VOCABULARY, label.name, "labels", f"{counts[str(label.id)]} samples carry it, the row says {label.count}"
        )
        for label in names
        if counts[str(label.id)] != label.count
    ]
    return findings


def _check_rejects(folder: str, manifest: Manifest) -> list[Finding]:
    path = join(folder, REJECTS)
    if not exists(path):
        return [Finding(REJECTS, "", "rejects", "missing")] if manifest.rejected else []
    counts: collections.Counter[str] = collections.Counter()
    try:
        for row in read_rejects(path):
            counts[str(row["reason"])] += 1
    except InputError as error:
        return [Finding(REJECTS, "", "rejects", str(error))]
    reasons = sorted(counts.keys() | manifest.rejected.keys())
    return [
        Finding(
            REJECTS,
            "",
            "rejects",
            f"{reason}: {counts[reason]} rows, the manifest says {manifest.rejected.get(reason, 0)}",
        )
        for reason in reasons
        if counts[reason] != manifest.rejected.get(reason, 0)
    ]


def read_rejects(path: str) -> Iterator[dict[str, object]]:
    """The rows of a rejects.jsonl.

    Raises:
        InputError: for a line that is no reject row.
    """
    with open_read(path) as file:
        for number, line in enumerate(file, 1):
            row = None
            with contextlib.suppress(ValueError):
                row = json.loads(line)
            if (
                not isinstance(row, dict)
                or not isinstance(row.get("reason"), str)
                or not isinstance(row.get("source"), str)
            ):
                raise InputError(
                    f"each line of {REJECTS} is an object with source and reason; line {number} is {line[:60]!r}."
                )
            yield row


def _notes_path(folder: str, manifest: Manifest, decode: int) -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    where = os.path.realpath(folder) if is_local(folder) else folder
    name = hashlib.sha256(json.dumps([where, manifest.fingerprint, decode]).encode()).hexdigest()[:24]
    return os.path.join(cache, "omnishard", "verify", f"{name}.jsonl")


def _read_notes(path: str) -> dict[str, dict[str, Any]]:
    """Shard -> note; a line that was being written when the process died is left out."""
    notes = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    note = json.loads(line)
                    notes[note["shard"]] = note
    return notes


def _stamp(path: str) -> list[int]:
    """Sizes and times of change of a local shard and its index; shards elsewhere are known by name alone."""
    found: list[int] = []
    for name in (path, index_path(path)):
        if is_local(path) and os.path.exists(name):
            facts = os.stat(name)
            found += [facts.st_size, facts.st_mtime_ns]
    return found
