"""What a sample is, how its key is made from its source, and which shard a key belongs to.

The key is a hash of the source id, and a shard is a range of the key space. So the concatenation of all shards is the
same sequence for every number of shards, shuffled by construction, whatever wrote it and in which order.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from sharding.errors import InputError

KEY_DIGITS = 24  # 96 bits: 64 would be expected to collide at a few billion samples
MAX_KEY_BYTES = 90  # with the extension a member name stays below ustar's 100 bytes
EXECUTABLE_EXTENSIONS = frozenset({"pkl", "pickle", "pyd", "pth"})  # webdataset's own decoder would run their content
_KEY = re.compile(r"[A-Za-z0-9_\-/]+\Z")
_EXTENSION = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*\Z")


@dataclass(frozen=True)
class Sample:
    """One record of a shard: its key, and its members (extension -> bytes) in the order of the tar."""

    key: str
    members: dict[str, bytes]


def make_key(source: str) -> str:
    """The first 24 hex digits of sha256(source id), the sample's name in every shard."""
    return hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:KEY_DIGITS]


def shard_of(key: str, num_shards: int) -> int:
    """Which of `num_shards` equal ranges of the key space the key lies in."""
    return int(key, 16) * num_shards >> 4 * KEY_DIGITS


def check_sample(sample: Sample) -> None:
    """Raise InputError unless plain webdataset, DALI and our reader would all see this one sample under this key."""
    if len(sample.key) > MAX_KEY_BYTES or not _KEY.match(sample.key):
        raise InputError(
            f"a key is 1 to {MAX_KEY_BYTES} ASCII letters, digits, '_', '-' or '/', without a dot; found {sample.key!r}."
        )
    if not sample.members:
        raise InputError(f"a sample has at least one member; {sample.key} has none.")
    for extension in sample.members:
        check_extension(extension, f"{sample.key}.{extension}")


def check_extension(extension: str, member: str) -> None:
    """Raise InputError for an extension that is malformed or that some reader would unpickle."""
    if not _EXTENSION.match(extension):
        raise InputError(
            f"an extension is lower-case ASCII such as 'jpg' or 'tags.json'; found {extension!r} in {member}."
        )
    if extension.rpartition(".")[2] in EXECUTABLE_EXTENSIONS:
        raise InputError(f"members that other readers unpickle are refused ({member}); store the data as json or npy.")


def decode_labels(members: dict[str, bytes]) -> list[int]:
    """The label ids of a sample: one from `cls`, several from `tags.json`, none when it has neither."""
    if "cls" in members:
        return [int(members["cls"])]
    if "tags.json" in members:
        return [int(label) for label in json.loads(members["tags.json"])]
    return []
