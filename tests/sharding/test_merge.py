"""merge: the bytes of one build from all inputs, whatever the cut; labels renumbered; duplicates named; resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
from PIL import Image

import sharding.merge
from sharding.__main__ import main
from sharding.errors import InputError
from sharding.files import list_files
from sharding.manifest import VOCABULARY, Label, Manifest, read_manifest, vocabulary_bytes, write_manifest
from sharding.merge import merge
from sharding.samples import Sample, make_key, shard_of
from sharding.tar import read_shard, write_shard
from sharding.verify import verify

CLASSES = ["cat", "dog", "owl"]
Photo = tuple[str, int]  # source, class


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build(
    folder: Path,
    photos: list[Photo],
    options: dict[str, object],
    labels: list[str] = CLASSES,
    bad: tuple[str, ...] = (),
) -> str:
    """A class set as a job would write it, by an independent and much simpler way: all in memory, sorted once."""
    read = len(photos) + len(bad)
    num_shards = int(str(options["shards"] or -(-read // int(str(options["samples_per_shard"])))))
    parts: list[list[Sample]] = [[] for _ in range(num_shards)]
    for source, label in sorted(photos, key=lambda photo: make_key(photo[0])):
        members = {"jpg": source.encode(), "json": json.dumps({"source": source}).encode(), "cls": str(label).encode()}
        parts[shard_of(make_key(source), num_shards)].append(Sample(make_key(source), members))
    folder.mkdir(parents=True)
    shards = tuple(write_shard(str(folder), f"shard-{n:06d}.tar", part) for n, part in enumerate(parts) if part)
    rows = [
        {"source": s, "stage": "decode", "reason": "empty", "message": "0 bytes", "sha256": "", "transient": False}
        for s in sorted(bad, key=make_key)
    ]
    (folder / "rejects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = [sum(label == i for _, label in photos) for i in range(len(labels))]
    data = vocabulary_bytes(
        [Label(i, name, (), count) for i, (name, count) in enumerate(zip(labels, counts, strict=True))]
    )
    (folder / VOCABULARY).write_bytes(data)
    vocabulary = {"name": VOCABULARY, "sha256": hashlib.sha256(data).hexdigest(), "labels": len(labels)}
    rejected = {"empty": len(bad)} if bad else {}
    write_manifest(str(folder), Manifest("classes", options, read, len(photos), rejected, shards, vocabulary))
    return str(folder)


def contents(folder: str | Path) -> dict[str, bytes]:
    return {name: Path(folder, name).read_bytes() for name in list_files(str(folder), hidden=True)}


A = [(f"a/{i}.jpg", i % 3) for i in range(40)]
B = [(f"b/{i}.jpg", i % 2) for i in range(33)]
C = [(f"c/{i}.jpg", 2) for i in range(5)]


@pytest.mark.parametrize(
    "options",
    [
        {"shards": None, "samples_per_shard": 10},
        {"shards": 1, "samples_per_shard": 10},
        {"shards": 200, "samples_per_shard": 7},
    ],
)
def test_the_bytes_of_one_build(options: dict[str, object], tmp_path: Path) -> None:
    """200 shards for 81 records: most ranges are empty, and an empty range makes no shard."""
    whole = build(tmp_path / "whole", A + B + C, options, bad=("a/x.jpg", "b/y.jpg", "b/z.jpg"))
    parts = [
        build(tmp_path / "a", A, options, bad=("a/x.jpg",)),
        build(tmp_path / "b", B, options, bad=("b/y.jpg", "b/z.jpg")),
        build(tmp_path / "c", C, options),
    ]
    assert merge(parts, str(tmp_path / "merged")) is True
    assert contents(tmp_path / "merged") == contents(whole)


def test_another_cut_by_option(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", A + B, {"shards": 7, "samples_per_shard": 10})
    parts = [
        build(tmp_path / name, x, {"shards": n, "samples_per_shard": 10}) for name, x, n in (("a", A, 3), ("b", B, 2))
    ]
    assert main(["merge", *parts, "--output", str(tmp_path / "merged"), "--shards", "7"]) == 0
    assert contents(tmp_path / "merged") == contents(whole)


def test_labels_of_a_smaller_vocabulary_are_renumbered_by_name(tmp_path: Path) -> None:
    options: dict[str, object] = {"shards": 3, "samples_per_shard": 10}
    whole = build(tmp_path / "whole", A + C, options)
    parts = [
        build(tmp_path / "c", [(source, 0) for source, _ in C], options, labels=["owl"]),
        build(tmp_path / "a", A, options),
    ]
    merge(parts, str(tmp_path / "merged"))
    assert contents(tmp_path / "merged") == contents(whole)


def test_a_source_in_both_is_kept_once_and_rejected_once(tmp_path: Path) -> None:
    options: dict[str, object] = {"shards": 3, "samples_per_shard": 10}
    again = [(source, 2 - label) for source, label in A[:4]]
    parts = [build(tmp_path / "a", A, options), build(tmp_path / "b", [*again, *B], options, bad=("b/y.jpg",))]
    merged = str(tmp_path / "merged")
    merge(parts, merged)
    manifest = read_manifest(merged)
    assert (manifest.read, manifest.kept) == (78, 73)
    assert manifest.rejected == {"duplicate_source": 4, "empty": 1}
    rows = [json.loads(line) for line in Path(merged, "rejects.jsonl").read_text().splitlines()]
    assert {row["source"] for row in rows} == {"b/y.jpg", *(source for source, _ in A[:4])}
    assert [make_key(row["source"]) for row in rows] == sorted(make_key(row["source"]) for row in rows)
    samples = {s.key: s for shard in manifest.shards for s in read_shard(f"{merged}/{shard.name}")}
    assert samples[make_key(A[0][0])].members["cls"] == str(A[0][1]).encode()  # the first folder's word counts
    assert verify(merged, decode=0).findings[0].rule == "not_an_image"  # the fixture's photos are no images
    assert {f.rule for f in verify(merged, decode=0).findings} == {"not_an_image"}


def test_killed_at_any_shard_it_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, object] = {"shards": 5, "samples_per_shard": 10}
    parts = [build(tmp_path / "a", A, options), build(tmp_path / "b", B, options)]
    merge(parts, str(tmp_path / "undisturbed"))
    true_write = sharding.merge.write_shard
    for stop in range(5):
        output = tmp_path / f"killed{stop}"
        written: list[str] = []

        def write(folder: str, name: str, samples: object, stop: int = stop, written: list[str] = written) -> object:
            if len(written) == stop:
                written.append("stop")
                Path(folder, f".{name}.part-123").write_bytes(b"half")
                raise KeyboardInterrupt
            written.append(name)
            return true_write(folder, name, samples)  # type: ignore[arg-type]

        output.mkdir()
        monkeypatch.setattr(sharding.merge, "write_shard", write)
        with pytest.raises(KeyboardInterrupt):
            merge(parts, str(output))
        assert not (output / "manifest.json").exists()
        merge(parts, str(output))
        assert sorted(name for name in written if name != "stop") == [f"shard-{i:06d}.tar" for i in range(5)]
        assert contents(output) == contents(tmp_path / "undisturbed")


def test_a_finished_merge_is_left_alone_and_another_one_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, object] = {"shards": 3, "samples_per_shard": 10}
    a, b, c = (
        build(tmp_path / n, x, options) for n, x in (("a", A), ("b", B), ("c", [(f"d/{i}.jpg", 0) for i in range(33)]))
    )
    output = str(tmp_path / "merged")
    assert main(["merge", a, b, "--output", output]) == 0
    stamps = {name: os.stat(f"{output}/{name}").st_mtime_ns for name in os.listdir(output)}
    assert main(["merge", a, b, "--output", output]) == 0
    assert "already complete" in capsys.readouterr().out
    assert stamps == {name: os.stat(f"{output}/{name}").st_mtime_ns for name in os.listdir(output)}
    assert main(["merge", a, c, "--output", output]) == 2  # as many records, other ones
    assert "holds another dataset" in capsys.readouterr().err


def test_what_cannot_be_merged(tmp_path: Path, tag_shards: str) -> None:
    options: dict[str, object] = {"shards": 3, "samples_per_shard": 10}
    a = build(tmp_path / "a", A, options)
    other = build(tmp_path / "other", [("x.jpg", 0)], options, labels=["zebra"])
    with pytest.raises(InputError, match=r"has 'zebra', .* has not\. Build the second set with --vocabulary"):
        merge([a, other], str(tmp_path / "out"))
    with pytest.raises(InputError, match="must be of one job"):
        merge([a, tag_shards], str(tmp_path / "out"))
    manifest = read_manifest(a)
    write_manifest(a, dataclasses.replace(manifest, job="index"))
    with pytest.raises(InputError, match="of adopted tars"):
        merge([other, a], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    b = build(tmp_path / "b", B, options)
    with pytest.raises(InputError, match=r"holds thesis\.txt"):
        merge([b, other.replace("other", "b")], str(tmp_path / "full"))


def test_the_job_itself_gives_the_same_bytes(tmp_path: Path) -> None:
    """Real photos, a broken and an empty one, through the real job: all but the page is the same."""
    pytest.importorskip("apache_beam")
    from pipelines.__main__ import main as build_main

    for part in ("a", "b"):
        for i, name in enumerate(CLASSES):
            for n in range(4):
                path = tmp_path / "photos" / part / name / f"{part}{n}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40 + n, 30), (80 * i, 20 * n, 5)).save(path)
                whole = tmp_path / "photos" / "all" / name / path.name
                whole.parent.mkdir(parents=True, exist_ok=True)
                whole.write_bytes(path.read_bytes())
    for part, data in (("a", b""), ("b", b"no photo")):
        for folder in (part, "all"):
            (tmp_path / "photos" / folder / "cat" / f"{part}bad.jpg").write_bytes(data)
    for part in ("a", "b", "all"):
        images, output = str(tmp_path / "photos" / part), str(tmp_path / "shards" / part)
        assert build_main(["classes", "--images", images, "--output", output, "--samples-per-shard", "6"]) == 0
    parts = [str(tmp_path / "shards" / part) for part in ("a", "b")]
    assert main(["merge", *parts, "--output", str(tmp_path / "merged")]) == 0
    expected = contents(tmp_path / "shards" / "all")
    del expected["report.html"]
    assert contents(tmp_path / "merged") == expected
    assert verify(str(tmp_path / "merged")).findings == ()
