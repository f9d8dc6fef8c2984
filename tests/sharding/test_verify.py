"""verify: a sound set has no finding, and each kind of damage is named by its shard, key and rule; info sums up."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import sharding.verify
from sharding.__main__ import main
from sharding.files import read_bytes
from sharding.index import index_bytes, read_index
from sharding.info import describe, describe_plan, summarize
from sharding.manifest import (
    VOCABULARY,
    Manifest,
    Shard,
    read_manifest,
    read_vocabulary,
    vocabulary_bytes,
    write_manifest,
)
from sharding.samples import Sample, make_key, shard_of
from sharding.tar import read_shard, write_shard
from sharding.verify import verify


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "omnishard" / "verify"


@pytest.fixture
def folder(class_shards: str, tmp_path: Path) -> str:
    """A copy that may be damaged, with label counts as a job writes them."""
    copy = str(tmp_path / "set")
    shutil.copytree(class_shards, copy)
    manifest = read_manifest(copy)
    counts = Counter(
        int(sample.members["cls"]) for shard in manifest.shards for sample in read_shard(f"{copy}/{shard.name}")
    )
    data = vocabulary_bytes([dataclasses.replace(x, count=counts[x.id]) for x in read_vocabulary(copy)])
    Path(copy, VOCABULARY).write_bytes(data)
    options: dict[str, object] = {"shards": 5}
    vocabulary = {**(manifest.vocabulary or {}), "sha256": hashlib.sha256(data).hexdigest()}
    write_manifest(copy, dataclasses.replace(manifest, options=options, vocabulary=vocabulary))
    return copy


def rewrite(folder: str, number: int, samples: list[Sample]) -> None:
    """Another content for a shard, with the manifest in step: only the rules about the content can tell."""
    manifest = read_manifest(folder)
    shards = list(manifest.shards)
    shards[number] = write_shard(folder, shards[number].name, samples)
    kept = sum(shard.samples for shard in shards)
    write_manifest(folder, dataclasses.replace(manifest, shards=tuple(shards), kept=kept, read=kept))


def rules(folder: str, **options: int) -> set[tuple[str, str, str]]:
    return {(finding.shard, finding.key, finding.rule) for finding in verify(folder, **options).findings}


def test_a_sound_set_has_no_finding(
    folder: str, capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path
) -> None:
    assert main(["verify", folder, "--json", str(tmp_path / "result.json")]) == 0
    assert "96 samples in 5 shards, 96 decoded: 0 findings" in capsys.readouterr().out
    assert json.loads((tmp_path / "result.json").read_bytes())["sound"] is True
    assert list(cache.iterdir()) == []
    assert verify(folder, decode=10).decoded == 10
    assert verify(folder, decode=0).decoded == 0


def test_a_flipped_bit_is_told_by_checksum_and_key(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    shard = read_manifest(folder).shards[1]
    member = read_index(f"{folder}/{shard.name}".replace(".tar", ".idx"))[3][0]
    data = bytearray(read_bytes(f"{folder}/{shard.name}"))
    data[member.offset : member.offset + 2] = b"xx"
    Path(folder, shard.name).write_bytes(data)
    assert rules(folder) == {(shard.name, "", "sha256"), (shard.name, member.key, "not_an_image")}
    assert main(["verify", folder]) == 1
    assert f"{shard.name}\t{member.key}\tnot_an_image\tjpg: begins with" in capsys.readouterr().out


def test_an_image_cut_short_is_found_only_by_decoding(folder: str) -> None:
    shard = read_manifest(folder).shards[0]
    samples = list(read_shard(f"{folder}/{shard.name}"))
    jpeg = samples[2].members["jpg"]
    samples[2] = Sample(samples[2].key, samples[2].members | {"jpg": jpeg[: len(jpeg) // 2]})
    rewrite(folder, 0, samples)
    assert rules(folder) == {(shard.name, samples[2].key, "corrupt")}
    assert rules(folder, decode=0) == set()


def test_cut_missing_and_unnamed_shards(folder: str) -> None:
    first, second, third = (shard.name for shard in read_manifest(folder).shards[:3])
    last_row = read_index(f"{folder}/{first}".replace(".tar", ".idx"))[-1]
    cut = last_row[0].offset + 100
    data = read_bytes(f"{folder}/{first}")
    Path(folder, first).write_bytes(data[:cut])
    os.unlink(f"{folder}/{second}")
    shutil.copy(f"{folder}/{third}", f"{folder}/shard-000099.tar")
    found = rules(folder)
    assert {(first, "", "bytes"), (first, "", "sha256"), (first, last_row[0].key, "shard_short")} <= found
    assert {(second, "", "missing"), ("shard-000099.tar", "", "stray")} <= found


def test_an_index_that_lies(folder: str) -> None:
    names = [f"{folder}/{shard.name}".replace(".tar", ".idx") for shard in read_manifest(folder).shards[:3]]
    rows = read_index(names[0])
    rows[4] = tuple(dataclasses.replace(member, offset=member.offset + 512) for member in rows[4])
    Path(names[0]).write_bytes(index_bytes(rows))
    Path(names[1]).write_bytes(index_bytes(read_index(names[1])[:-1]))
    Path(names[2]).write_bytes(b"not an index\n")
    findings = verify(folder).findings
    assert {(f.shard, f.rule) for f in findings} == {(f"shard-00000{i}.tar", "index") for i in range(3)}
    assert next(f for f in findings if f.shard == "shard-000000.tar").key == rows[4][0].key


def test_keys_in_a_wrong_place_and_twice(folder: str) -> None:
    shards = read_manifest(folder).shards
    stray = next(s for s in read_shard(f"{folder}/{shards[3].name}"))
    samples = sorted([*read_shard(f"{folder}/{shards[1].name}"), stray], key=lambda sample: sample.key)
    rewrite(folder, 1, samples)
    found = rules(folder)
    assert (shards[1].name, stray.key, "range") in found
    assert any(rule == "order" for _, _, rule in found)
    assert (VOCABULARY, ["circle", "cross", "square", "stripe"][int(stray.members["cls"])], "labels") in found


def test_labels_outside_the_vocabulary_and_counts_that_do_not_add_up(folder: str) -> None:
    samples = list(read_shard(f"{folder}/shard-000000.tar"))
    samples[0] = Sample(samples[0].key, samples[0].members | {"cls": b"4"})
    samples[1] = Sample(samples[1].key, samples[1].members | {"cls": b"circle"})
    rewrite(folder, 0, samples)
    manifest = read_manifest(folder)
    write_manifest(folder, dataclasses.replace(manifest, read=manifest.kept + 2, rejected={"empty": 2}))
    Path(folder, "rejects.jsonl").write_text('{"source": "a.jpg", "reason": "empty"}\n')
    found = {(f.shard, f.rule, f.found) for f in verify(folder).findings}
    assert (VOCABULARY, "labels", "samples carry the label 4, the vocabulary has 4") in found
    assert ("shard-000000.tar", "bad_label", "cls is b'circle'") in found
    assert ("rejects.jsonl", "rejects", "empty: 1 rows, the manifest says 2") in found


def test_an_interrupted_verification_goes_on(folder: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    looked: list[str] = []
    true_scan = sharding.verify.scan_tar

    def scan(path: str, decode: object) -> object:
        looked.append(Path(path).name)
        if "again" not in looked and len(looked) >= 4:  # the thread may begin one more before it is told to stop
            raise KeyboardInterrupt
        return true_scan(path, decode)  # type: ignore[arg-type]

    monkeypatch.setattr(sharding.verify, "scan_tar", scan)
    with pytest.raises(KeyboardInterrupt):
        verify(folder, threads=1)
    assert looked[:4] == [f"shard-{i:06d}.tar" for i in range(4)]
    changed = Path(folder, "shard-000001.tar")
    changed.write_bytes(changed.read_bytes() + bytes(512))  # a shard changed since is looked through again
    looked[:] = ["again"]
    verdict = verify(folder, threads=1)
    assert looked[1:] == ["shard-000001.tar", "shard-000003.tar", "shard-000004.tar"]
    assert {f.rule for f in verdict.findings} == {"bytes", "sha256"}
    assert verdict.decoded == 96
    assert list(cache.iterdir()) == []


def test_a_manifest_that_names_files_outside_is_not_read(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(folder, "manifest.json")
    text = path.read_text()
    for name in ("../other/shard-000000.tar", "/etc/passwd", "http://host/x.tar", "a/../../x.tar"):
        path.write_text(text.replace("shard-000000.tar", name, 1))
        assert main(["verify", folder]) == 2
        assert f"found {name!r}" in capsys.readouterr().err


def test_info_from_the_manifest_alone(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    for shard in read_manifest(folder).shards:
        os.unlink(f"{folder}/{shard.name}")
    assert main(["info", folder, "--plan", "--batch-size", "16"]) == 0
    out = capsys.readouterr().out
    assert "read         96 = kept 96 + rejected 0" in out
    assert "labels       4:" in out
    assert "ranks        1, 2, 4, 8, 16, 32, 64 " in out


def test_info_of_many_shards_agrees_with_the_whole_manifest_and_opens_no_shard(tmp_path: Path) -> None:
    shards = tuple(Shard(f"shard-{i:06d}.tar", 1000 + i, f"{i:064x}", 10) for i in range(100_000))
    write_manifest(str(tmp_path), Manifest("classes", {"shards": 100_000}, 10**6, 10**6, {}, shards, None))
    summary = summarize(str(tmp_path))  # there is no shard to open
    assert (summary.shards, summary.bytes) == (100_000, sum(1000 + i for i in range(100_000)))
    assert dataclasses.replace(summary.manifest, shards=shards) == read_manifest(str(tmp_path))
    assert "shards       100,000" in describe(str(tmp_path))


def test_the_shuffle_of_one_window_over_all_shards_is_a_full_permutation(class_shards: str) -> None:
    """Five shards within one lane and one window: pairs from one shard are as frequent as chance has it."""
    line = next(x for x in describe_plan(class_shards, 24, lanes=1, window=5).splitlines() if "two samples" in x)
    ours, full = (float(word) for word in line.replace("%", "").split() if word[0].isdigit())
    assert abs(ours - full) < 2
    one_by_one = next(x for x in describe_plan(class_shards, 24, lanes=1, window=1).splitlines() if "two samples" in x)
    assert float(one_by_one.split()[8]) > 2 * full


def test_help_is_quick_and_light() -> None:
    code = "import sys; from sharding.__main__ import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\nprint([m for m in ('torch', 'apache_beam', 'PIL', 'matplotlib', 'jinja2') if m in sys.modules])"
    for words in (["--help"], ["verify", "--help"], ["merge", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["verfy"], "Did you mean verify?"),
        (["verify"], "DIR must be given"),
        (["verify", "nowhere"], "nowhere does not exist"),
        (["verify", "nowhere", "--decode", "some"], "--decode must be all, none or a number"),
        (["merge", "a", "--output", "c"], "two datasets or more; found 1"),
        (["index", "nowhere"], "nowhere does not exist"),
        (["info", "x", "--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: list[str], rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    message = capsys.readouterr().err
    assert rule in message
    assert message.count("\n") == 1


def test_ranges_are_those_of_the_key_space(folder: str) -> None:
    """The fixture's shards are where `shard_of` puts them, else the range rule above would prove nothing."""
    sample = next(read_shard(f"{folder}/shard-000003.tar"))
    assert shard_of(sample.key, 5) == 3
    assert sample.key == make_key(json.loads(sample.members["json"])["source"])
