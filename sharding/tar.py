"""Shards as POSIX ustar files that webdataset, DALI and GNU tar all read alike, byte for byte the same on every machine.

mtime, uid and gid are 0; the members of one key are adjacent, in the order given; keys ascend; two end blocks close the
file. PAX and GNU headers are never written: tools disagree about where the data behind them begins.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from sharding.errors import InputError
from sharding.files import join, open_atomic, open_read, write_atomic
from sharding.index import Member, index_bytes, index_path
from sharding.manifest import Shard
from sharding.samples import Sample, check_extension, check_sample

_BLOCK = 512


def write_shard(folder: str, name: str, samples: Iterable[Sample]) -> Shard:
    """Write folder/name (`shard-000000.tar`) and its index; both appear under their names only when complete.

    Raises:
        InputError: when keys do not ascend, or a sample breaks a rule of `check_sample`.
    """
    rows: list[list[Member]] = []
    digest = hashlib.sha256()
    size = 0
    with open_atomic(join(folder, name)) as file:
        for data, row in _blocks(samples):
            file.write(data)
            digest.update(data)
            size += len(data)
            if row:
                rows.append(row)
    write_atomic(index_path(join(folder, name)), index_bytes(rows))
    return Shard(name=name, bytes=size, sha256=digest.hexdigest(), samples=len(rows))


def _blocks(samples: Iterable[Sample]) -> Iterator[tuple[bytes, list[Member]]]:
    """The bytes of each sample with its index row, then the end of the tar with an empty row."""
    position, last = 0, ""
    for sample in samples:
        check_sample(sample)
        if sample.key <= last:
            raise InputError(f"keys of a shard must ascend; {sample.key} came after {last}: sort, and drop duplicates.")
        last = sample.key
        parts: list[bytes] = []
        row = []
        for extension, data in sample.members.items():
            info = tarfile.TarInfo(f"{sample.key}.{extension}")
            info.size, info.mode = len(data), 0o644
            row.append(Member(extension, position + _BLOCK, len(data), info.name))
            parts += [info.tobuf(tarfile.USTAR_FORMAT), data, b"\0" * (-len(data) % _BLOCK)]
            position += _BLOCK + len(data) + -len(data) % _BLOCK
        yield b"".join(parts), row
    yield b"\0" * (2 * _BLOCK), []


def read_shard(path: str) -> Iterator[Sample]:
    """The samples of a tar one after the other, any webdataset tar that keeps the rules of `sharding.samples`.

    Raises:
        InputError: for links, devices, absolute or `..` names, members that others would unpickle, one key in two places,
            the same member twice, a tar that is cut short.
    """
    key, members, seen = "", dict[str, bytes](), set[str]()
    with open_read(path) as file:
        for name, data in _members(file, path):
            base, dot, rest = name.rpartition("/")[2].partition(".")
            this = name[: len(name) - len(dot + rest)]
            if not base or not dot:
                raise InputError(f"{path}: a member is named KEY.EXTENSION; found {name!r}.")
            check_extension(rest.lower(), name)
            if this != key:
                if key:
                    yield Sample(key, members)
                if this in seen:
                    raise InputError(f"{path}: the members of a key must be adjacent; {this} comes twice.")
                key, members = this, {}
                seen.add(this)
            if rest.lower() in members:
                raise InputError(f"{path}: {name} comes twice.")
            members[rest.lower()] = data
    if key:
        yield Sample(key, members)


def _members(file: BinaryIO, path: str) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for info in tar:
                if info.isdir():
                    continue
                if not info.isreg():
                    raise InputError(f"{path}: only plain files are read; {info.name!r} is a link or a device.")
                if info.name.startswith("/") or ".." in info.name.split("/"):
                    raise InputError(f"{path}: names stay below the shard; found {info.name!r}.")
                content = tar.extractfile(info)
                data = content.read() if content else b""
                if len(data) != info.size:
                    raise InputError(f"{path} is cut short inside {info.name}: {len(data)} of {info.size} bytes.")
                yield info.name, data
    except tarfile.TarError as error:
        raise InputError(f"{path} is no complete tar: {error}.") from error
