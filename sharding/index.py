"""DALI's webdataset index (v1.2): where each member of each sample lies in the tar.

One text line per sample, four words per member: extension, offset of the data, size, member name. DALI's own indexer
trusts the tar dialect; we write the offsets at which the data was really put, and read the same file ourselves.
Names of foreign tars may hold spaces and any letters: such characters are percent-encoded, so that words stay words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from sharding.errors import InputError
from sharding.files import read_bytes


@dataclass(frozen=True)
class Member:
    """One file of a tar: `size` bytes of data at `offset`."""

    extension: str
    offset: int
    size: int
    name: str

    @property
    def key(self) -> str:
        """The sample that this member belongs to."""
        return self.name[: -len(self.extension) - 1]


def index_path(shard: str) -> str:
    """Where the index of a shard lies: beside it, `.idx` for `.tar`. Takes a name, a path or a URL."""
    return shard.removesuffix(".tar") + ".idx"


def index_bytes(rows: Sequence[Iterable[Member]]) -> bytes:
    """The index file of a shard, one row per sample."""
    lines = [f"v1.2 {len(rows)}"]
    lines += [" ".join(f"{m.extension} {m.offset} {m.size} {_word(m.name)}" for m in row) for row in rows]
    return ("\n".join(lines) + "\n").encode("ascii")


def _word(name: str) -> str:
    return quote(name, safe="/!#$&'()*+,:;=?@[]~", errors="surrogateescape")


def _name(word: str) -> str:
    return unquote(word, errors="surrogateescape") if "%" in word else word


def read_index(path: str) -> list[tuple[Member, ...]]:
    """The members of every sample of a shard.

    Raises:
        InputError: when the file is no v1.2 index or holds another number of rows than it says.
    """
    head, *lines = read_bytes(path).decode("ascii").splitlines()
    version, _, count = head.partition(" ")
    if version != "v1.2" or not count.isdigit() or int(count) != len(lines):
        raise InputError(
            f"{path} must be a v1.2 index with as many rows as it says; found {head!r} and {len(lines)} rows. "
            "Make it anew by rerunning the job that wrote the shard."
        )
    rows = []
    for line in lines:
        words = line.split(" ")
        rows.append(
            tuple(
                Member(words[i], int(words[i + 1]), int(words[i + 2]), _name(words[i + 3]))
                for i in range(0, len(words), 4)
            )
        )
    return rows
