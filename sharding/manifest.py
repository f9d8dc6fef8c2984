"""The manifest of a dataset folder: what was read, what became of it, which shards are data, what the labels mean.

It is written last. A shard that no manifest names is not data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sharding import __version__
from sharding.errors import InputError
from sharding.files import exists, join, read_bytes, write_atomic

FORMAT = 1
MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.tsv"
_OUTSIDE = re.compile(r"^(/.*|.*://.*|(.*/)?\.\.(/.*)?)$", re.MULTILINE)


@dataclass(frozen=True)
class Shard:
    """A row of the manifest: file name, size and sha256 of the tar, number of samples."""

    name: str
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True)
class Label:
    """A row of the vocabulary: id, canonical name, the words that stand for it, kept samples that carry it."""

    id: int
    name: str
    members: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class Manifest:
    """All that a reader must know of a dataset folder. read = kept + the sum of rejected, always."""

    job: str
    options: dict[str, object]
    read: int
    kept: int
    rejected: dict[str, int]
    shards: tuple[Shard, ...]
    vocabulary: dict[str, object] | None
    version: str = __version__
    fingerprint: str = ""
    format: int = FORMAT


def fingerprint_of(shards: Sequence[Shard], vocabulary: Mapping[str, object] | None) -> str:
    """What the data is, in 32 hex digits: the checksums of the shards and of the vocabulary."""
    facts = [[[s.name, s.sha256, s.samples] for s in shards], dict(vocabulary) if vocabulary else None]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def write_manifest(folder: str, manifest: Manifest) -> None:
    """Make the folder's shards data.

    Raises:
        InputError: unless every record read was either kept or rejected, and the kept ones are those in the shards.
    """
    rejected, stored = sum(manifest.rejected.values()), sum(shard.samples for shard in manifest.shards)
    if manifest.read != manifest.kept + rejected or manifest.kept != stored:
        raise InputError(
            f"read must be kept + rejected, and kept what the shards hold; found read {manifest.read}, kept "
            f"{manifest.kept}, rejected {rejected}, in shards {stored}: records were lost, the job is not finished."
        )
    fields = asdict(manifest) | {"fingerprint": fingerprint_of(manifest.shards, manifest.vocabulary)}
    order = ["format", "job", "options", "version", "fingerprint", "read", "kept", "rejected", "shards", "vocabulary"]
    text = json.dumps({name: fields[name] for name in order}, indent=1, ensure_ascii=False)
    write_atomic(join(folder, MANIFEST), (text + "\n").encode())


def read_manifest(folder: str) -> Manifest:
    """The manifest of a finished dataset folder.

    Raises:
        InputError: when there is none (the job did not finish), or it is not of this format.
    """
    path = join(folder, MANIFEST)
    if not exists(path):
        if not exists(folder):
            raise InputError(
                f"a dataset is a folder with {MANIFEST}; {folder} does not exist. Build it: omnishard build --help."
            )
        raise InputError(
            f"a dataset is a folder with {MANIFEST}; {folder} has none. If a job was writing it, run the same command again: "
            "it goes on where it stopped."
        )
    try:
        fields = json.loads(read_bytes(path))
        if fields["format"] != FORMAT:
            raise InputError(
                f"{path} must be of format {FORMAT}, found {fields['format']!r}: read it with the version that wrote it."
            )
        fields["shards"] = tuple(Shard(**row) for row in fields["shards"])
        outside = _OUTSIDE.search("\n".join(shard.name for shard in fields["shards"]))
        if outside:
            raise InputError(
                f"{path} must name shards below its folder; found {outside.group()!r}: do not trust this set."
            )
        return Manifest(**fields)
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} is not a manifest ({error}): build the dataset again, or restore the file."
        ) from error


def vocabulary_bytes(labels: Sequence[Label]) -> bytes:
    """vocabulary.tsv: a header, then one row per label: id, name, members (separated by spaces), count."""
    rows = ["id\tname\tmembers\tcount"] + [f"{x.id}\t{x.name}\t{' '.join(x.members)}\t{x.count}" for x in labels]
    return ("\n".join(rows) + "\n").encode()


def read_vocabulary(path: str) -> list[Label]:
    """The labels of a dataset folder or of a vocabulary.tsv, by id.

    Raises:
        InputError: when the rows are not id, name, members, count with ids 0, 1, 2, ...
    """
    if not path.endswith(".tsv"):
        path = join(path, VOCABULARY)
    if not exists(path):
        raise InputError(f"labels are named in {VOCABULARY}; {path} does not exist.")
    header, *lines = read_bytes(path).decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    ids = [row[0] for row in rows]
    if (
        header != "id\tname\tmembers\tcount"
        or any(len(row) != 4 for row in rows)
        or ids != [str(i) for i in range(len(rows))]
    ):
        raise InputError(
            f"{path} must have the columns id, name, members, count and the ids 0, 1, 2, ...; found {header!r}."
        )
    return [Label(int(i), name, tuple(members.split()), int(count)) for i, name, members, count in rows]
