"""Foreign webdataset tars become a dataset: an index beside each tar, a manifest, and a list of what cannot be vouched for.

The tars are not touched. Offsets are those at which the data really lies, also behind PAX and GNU long names, where
DALI's own indexer goes wrong. A record that breaks a rule is left out of the index, so that no reader meets it.
"""

from __future__ import annotations

import collections
import concurrent.futures
import hashlib
import json
import os
from dataclasses import dataclass

from sharding.errors import InputError
from sharding.files import exists, join, list_files, open_atomic, open_read, remove, size_of, write_atomic
from sharding.index import index_bytes, index_path
from sharding.manifest import MANIFEST, Manifest, Shard, read_manifest, write_manifest
from sharding.order import ADOPTED, REJECTS
from sharding.progress import Progress
from sharding.scan import Found, scan_tar


@dataclass(frozen=True)
class _Scanned:
    """A tar as it was found: size in bytes, checksum, records."""

    name: str
    bytes: int
    sha256: str
    records: list[Found]


def index_folder(folder: str, decode: bool = True, threads: int | None = None) -> Manifest:
    """Write DIR/*.idx, rejects.jsonl and manifest.json for the tars below `folder`; again only when a tar has changed its size.

    Keys are held in memory, about a hundred bytes each. With `decode` every image is decoded once.

    Raises:
        InputError: when the folder holds no tar or no good record, or is a dataset that a job wrote.
    """
    if exists(join(folder, MANIFEST)):
        manifest = read_manifest(folder)
        if manifest.job != ADOPTED:
            raise InputError(f"index is for foreign tars; {folder} was built by job {manifest.job} and has its index.")
        if _is_current(folder, manifest, decode):
            return manifest
    names = _tars(folder)
    if not names:
        raise InputError(f"index needs .tar files; {folder} {'holds none' if exists(folder) else 'does not exist'}.")
    remove(join(folder, MANIFEST))  # from here on the old index is not data
    shards: list[Shard] = []
    keys: set[str] = set()
    rejected: collections.Counter[str] = collections.Counter()
    total = sum(size_of(join(folder, name)) for name in names)
    done = 0
    with (
        concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool,
        open_atomic(join(folder, REJECTS)) as rejects,
        Progress("index", total >> 20, unit="MB") as progress,
    ):
        waiting = collections.deque[concurrent.futures.Future[_Scanned]]()
        ahead = iter(names)
        try:
            while True:
                while len(waiting) < 2 * (threads or os.cpu_count() or 1) and (name := next(ahead, None)) is not None:
                    waiting.append(pool.submit(_scan, folder, name, decode))
                if not waiting:
                    break
                tar = waiting.popleft().result()
                kept = []
                for found in tar.records:
                    reason, message = found.reason, found.message
                    if not reason and found.key in keys:
                        reason, message = "duplicate_key", "an earlier shard has this key"
                    if reason:
                        rejected[reason] += 1
                        rejects.write(_reject(tar.name, found.key, reason, message))
                    else:
                        keys.add(found.key)
                        kept.append(found.members)
                write_atomic(index_path(join(folder, tar.name)), index_bytes(kept))
                if kept:  # a tar without a good record is no shard: DALI would make an empty sample of it
                    shards.append(Shard(tar.name, tar.bytes, tar.sha256, len(kept)))
                done += tar.bytes
                progress.update(done >> 20)
        finally:
            pool.shutdown(cancel_futures=True)
        if not keys:
            found_text = ", ".join(f"{reason} {count}" for reason, count in rejected.items()) or "all of them are empty"
            raise InputError(
                f"a dataset has at least one sample; {len(names)} tars of {folder} gave none ({found_text})."
            )
    manifest = Manifest(
        job=ADOPTED,
        options={"tars": len(names), "decode": decode},
        read=len(keys) + sum(rejected.values()),
        kept=len(keys),
        rejected=dict(sorted(rejected.items())),
        shards=tuple(shards),
        vocabulary=None,
    )
    write_manifest(folder, manifest)
    return read_manifest(folder)


def _tars(folder: str) -> list[str]:
    return [name for name in list_files(folder) if name.endswith(".tar")]


def _is_current(folder: str, manifest: Manifest, decode: bool) -> bool:
    """True when the tars are those that were indexed, as far as names and sizes tell."""
    names = _tars(folder)
    sizes = all(exists(join(folder, s.name)) and size_of(join(folder, s.name)) == s.bytes for s in manifest.shards)
    indexed = all(exists(index_path(join(folder, name))) for name in names)
    return sizes and indexed and manifest.options == {"tars": len(names), "decode": decode}


def _scan(folder: str, name: str, decode: bool) -> _Scanned:
    path = join(folder, name)
    records = list(scan_tar(path, lambda _: decode))
    size, digest = checksum(path)
    return _Scanned(name, size, digest, records)


def checksum(path: str) -> tuple[int, str]:
    """Size in bytes and sha256 of a file."""
    digest, size = hashlib.sha256(), 0
    with open_read(path) as file:
        while data := file.read(1 << 20):
            digest.update(data)
            size += len(data)
    return size, digest.hexdigest()


def _reject(shard: str, key: str, reason: str, message: str) -> bytes:
    row = {
        "source": f"{shard}/{key}" if key else shard,
        "stage": "index",
        "reason": reason,
        "message": message,
        "sha256": "",
        "transient": False,
    }
    # Names of foreign tars may hold bytes that are no UTF-8.
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
