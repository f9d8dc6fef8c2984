"""diff: the same samples in another cut are equal; what was changed, added and taken away is named, and nothing else."""

from __future__ import annotations

import itertools
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from sharding.__main__ import main
from sharding.adopt import index_folder
from sharding.diff import diff
from sharding.manifest import VOCABULARY, Label, Manifest, read_manifest, vocabulary_bytes, write_manifest
from sharding.samples import Sample, shard_of
from sharding.tar import read_shard, write_shard


def samples_of(folder: str) -> list[Sample]:
    return [sample for shard in read_manifest(folder).shards for sample in read_shard(f"{folder}/{shard.name}")]


def write(folder: Path, samples: list[Sample], num_shards: int, labels: list[str]) -> str:
    folder.mkdir()
    groups = itertools.groupby(samples, key=lambda sample: shard_of(sample.key, num_shards))
    shards = tuple(write_shard(str(folder), f"shard-{n:06d}.tar", group) for n, group in groups)
    (folder / VOCABULARY).write_bytes(vocabulary_bytes([Label(i, x, (x,), 0) for i, x in enumerate(labels)]))
    write_manifest(str(folder), Manifest("t", {}, len(samples), len(samples), {}, shards, {"labels": len(labels)}))
    return str(folder)


LABELS = ["circle", "cross", "square", "stripe"]


def test_the_same_samples_in_another_cut_are_equal(class_shards: str, tmp_path: Path) -> None:
    other = write(tmp_path / "b", samples_of(class_shards), 17, LABELS)
    assert list(diff(class_shards, other)) == [None] * 96
    assert main(["diff", class_shards, other]) == 0


def test_each_difference_is_named(class_shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = samples_of(class_shards)
    removed, changed, added = samples[0], samples[10], Sample("f" * 24, {"jpg": b"new", "cls": b"0"})
    flipped = bytes([changed.members["jpg"][0] ^ 1]) + changed.members["jpg"][1:]  # the same size
    with_change = Sample(changed.key, {"jpg": flipped, "cls": changed.members["cls"], "txt": b"x"})
    new = [with_change if s is changed else s for s in samples[1:]] + [added]
    other = write(tmp_path / "b", new, 3, ["circle", "square", "cross", "dot"])
    found = [d for d in diff(class_shards, other) if d]
    assert {(d.key, d.kind, d.found) for d in found} == {
        (removed.key, "only_a", "shard-000000.tar"),
        (changed.key, "members", "jpg json txt"),
        (added.key, "only_b", "shard-000002.tar"),
        ("cross", "label", "id 1 in A, 2 in B"),
        ("square", "label", "id 2 in A, 1 in B"),
        ("dot", "label", "only in B"),
        ("stripe", "label", "only in A"),
    }
    assert main(["diff", class_shards, other, "--json", str(tmp_path / "d.json"), "--most", "2"]) == 1
    out = capsys.readouterr().out
    assert "94 samples equal, 1 differ, 1 only in A, 1 only in B, 4 labels differ" in out
    assert "... and 5 more" in out
    result = json.loads((tmp_path / "d.json").read_bytes())
    assert (result["equal"], result["members"], len(result["differences"])) == (94, 1, 2)


def test_swapping_the_sides_swaps_the_answer(class_shards: str, tag_shards: str) -> None:
    one = Counter(d.kind if d else "equal" for d in diff(class_shards, tag_shards))
    two = Counter(d.kind if d else "equal" for d in diff(tag_shards, class_shards))
    assert one["only_a"] == two["only_b"]
    assert one["only_b"] == two["only_a"]
    assert one["only_a"] + one["equal"] + one["members"] == 96


def test_an_adopted_set_in_any_order_is_compared_too(class_shards: str, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    names = [shard.name for shard in read_manifest(class_shards).shards]
    for number, name in enumerate(reversed(names)):
        with tarfile.open(f"{class_shards}/{name}") as source, tarfile.open(folder / f"{number}.tar", "w") as target:
            groups = [list(g) for _, g in itertools.groupby(source, key=lambda info: info.name.partition(".")[0])]
            for info in itertools.chain.from_iterable(reversed(groups)):
                target.addfile(info, source.extractfile(info))
    index_folder(str(folder))
    kinds = Counter(d.kind if d else "equal" for d in diff(class_shards, str(folder)))
    assert kinds == {"equal": 96, "label": 4}  # foreign tars have no vocabulary
