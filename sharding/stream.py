"""Samples by random access: the index says where the bytes lie, a positioned read fetches just them.

Local shards are read by pread through a small cache of open files, so that threads share no file position; other file
systems answer range reads.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Collection

from sharding.errors import InputError
from sharding.files import is_local, join, read_range
from sharding.index import Member, index_path, read_index
from sharding.plan import Plan, Records
from sharding.samples import Sample


class _OpenFile:
    """A file that closes when the cache has forgotten it and the last read is done."""

    def __init__(self, path: str) -> None:
        self.path, self.descriptor = path, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Positioned, so that threads do not disturb each other; a method, so that the file lives while it is read."""
        data = os.pread(self.descriptor, size, offset)
        if len(data) != size:
            raise EOFError(f"{self.path} must hold {size} bytes at {offset}, found {len(data)}: the file is cut short.")
        return data


@functools.lru_cache(maxsize=256)
def _open(path: str, size: int) -> _OpenFile:
    file = _OpenFile(path)
    found = os.fstat(file.descriptor).st_size
    if found != size:
        raise InputError(
            f"{path} must have {size} bytes as the manifest says; found {found}: restore or rebuild the shard."
        )
    return file


@functools.lru_cache(maxsize=256)
def _index(path: str, samples: int) -> list[tuple[Member, ...]]:
    rows = read_index(path)
    if len(rows) != samples:
        raise InputError(
            f"{path} must list {samples} samples as the manifest says; found {len(rows)}: rebuild the shard."
        )
    return rows


def read_rows(plan: Plan, dataset: int, shard: int) -> list[tuple[Member, ...]]:
    """The index of one shard: the members of every sample in it, without their bytes."""
    row = plan.shards_of(dataset)[shard]
    return _index(index_path(join(plan.folders[dataset], row.name)), row.samples)


def read_samples(plan: Plan, records: Records, extensions: Collection[str] | None = None) -> list[Sample]:
    """The samples at `records`, in that order; only the members in `extensions` when given.

    Raises:
        InputError: when a shard or its index is not as the manifest says.
    """
    return [
        read_sample(plan, *where, extensions)
        for where in zip(records.dataset.tolist(), records.shard.tolist(), records.record.tolist(), strict=True)
    ]


def read_sample(plan: Plan, dataset: int, shard: int, record: int, extensions: Collection[str] | None = None) -> Sample:
    """One sample by its place."""
    row = plan.shards_of(dataset)[shard]
    path = join(plan.folders[dataset], row.name)
    members = read_rows(plan, dataset, shard)[record]
    data = {}
    for member in members:
        if extensions is not None and member.extension not in extensions:
            continue
        if is_local(path):
            data[member.extension] = _open(path, row.bytes).read(member.offset, member.size)
        else:
            data[member.extension] = read_range(path, member.offset, member.size)
    return Sample(members[0].key, data)
