"""Shards are read alike by tarfile, the webdataset library, DALI and our reader; bad tars are refused."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from sharding.errors import InputError
from sharding.index import read_index
from sharding.samples import Sample, make_key, shard_of
from sharding.tar import read_shard, write_shard

SAMPLES = [Sample(make_key(f"photo {i}"), {"jpg": bytes([i]) * (i * 300), "tags.json": b"[1]"}) for i in range(5)]
SAMPLES.sort(key=lambda sample: sample.key)


def test_our_reader_and_tarfile_see_what_was_written(tmp_path: Path) -> None:
    row = write_shard(str(tmp_path), "shard-000000.tar", SAMPLES)
    path = tmp_path / "shard-000000.tar"
    assert list(read_shard(str(path))) == SAMPLES
    assert (row.samples, row.bytes) == (5, path.stat().st_size)
    with tarfile.open(path) as tar:
        infos = tar.getmembers()
        assert [i.name for i in infos] == [f"{s.key}.{e}" for s in SAMPLES for e in s.members]
        assert {(i.mtime, i.uid, i.gid, i.uname) for i in infos} == {(0, 0, 0, "")}
    assert path.read_bytes()[257:263] == b"ustar\0"
    assert path.read_bytes()[-1024:] == bytes(1024)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shard-000000.idx", "shard-000000.tar"]


def test_two_writes_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_shard(str(tmp_path / name), "s.tar", SAMPLES) for name in "ab")
    assert one == two
    assert (tmp_path / "a/s.tar").read_bytes() == (tmp_path / "b/s.tar").read_bytes()


def test_index_equals_that_of_dalis_own_tool(tmp_path: Path) -> None:
    indexer = pytest.importorskip("wds2idx")
    write_shard(str(tmp_path), "s.tar", SAMPLES)
    with indexer.IndexCreator(str(tmp_path / "s.tar"), str(tmp_path / "theirs.idx"), verbose=False) as creator:
        creator.create_index()
    assert (tmp_path / "s.idx").read_text() == (tmp_path / "theirs.idx").read_text()


def test_index_points_at_the_data(tmp_path: Path) -> None:
    write_shard(str(tmp_path), "s.tar", SAMPLES)
    data = (tmp_path / "s.tar").read_bytes()
    rows = read_index(str(tmp_path / "s.idx"))
    assert [{m.extension: data[m.offset : m.offset + m.size] for m in row} for row in rows] == [
        s.members for s in SAMPLES
    ]
    assert [row[0].key for row in rows] == [s.key for s in SAMPLES]


def test_gnu_tar_lists_it(tmp_path: Path) -> None:
    write_shard(str(tmp_path), "s.tar", SAMPLES)
    listed = subprocess.run(["tar", "tf", str(tmp_path / "s.tar")], capture_output=True, text=True, check=True)
    assert len(listed.stdout.split()) == 10
    assert listed.stderr == ""


@pytest.mark.parametrize(
    ("samples", "rule"),
    [
        ([SAMPLES[1], SAMPLES[0]], "ascend"),
        ([SAMPLES[0], SAMPLES[0]], "ascend"),
        ([Sample("a.b", {"jpg": b""})], "without a dot"),
        ([Sample("a" * 91, {"jpg": b""})], "90"),
        ([Sample("é", {"jpg": b""})], "ASCII"),
        ([Sample("a", {"pyd": b""})], "unpickle"),
        ([Sample("a", {"JPG": b""})], "lower-case"),
        ([Sample("a", {})], "at least one member"),
    ],
)
def test_writer_refuses_what_readers_would_not_agree_on(tmp_path: Path, samples: list[Sample], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        write_shard(str(tmp_path), "s.tar", samples)
    assert list(tmp_path.iterdir()) == []


def foreign_tar(path: Path, members: list[tuple[str, bytes, bytes]]) -> str:
    with tarfile.open(path, "w") as tar:
        for name, data, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ([("a.jpg", b"", tarfile.SYMTYPE)], "link or a device"),
        ([("a.jpg", b"", tarfile.CHRTYPE)], "link or a device"),
        ([("../a.jpg", b"1", tarfile.REGTYPE)], "below the shard"),
        ([("a.pyd", b"1", tarfile.REGTYPE)], "unpickle"),
        (
            [("a.jpg", b"1", tarfile.REGTYPE), ("b.jpg", b"1", tarfile.REGTYPE), ("a.cls", b"1", tarfile.REGTYPE)],
            "adjacent",
        ),
        ([("a.jpg", b"1", tarfile.REGTYPE), ("a.jpg", b"1", tarfile.REGTYPE)], "twice"),
    ],
)
def test_reader_refuses_dangerous_and_ambiguous_tars(
    tmp_path: Path, members: list[tuple[str, bytes, bytes]], rule: str
) -> None:
    with pytest.raises(InputError, match=rule):
        list(read_shard(foreign_tar(tmp_path / "x.tar", members)))


def test_reader_refuses_a_tar_that_is_cut_short(tmp_path: Path) -> None:
    write_shard(str(tmp_path), "s.tar", SAMPLES)
    data = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[:1300])
    with pytest.raises(InputError, match=r"cut|complete"):
        list(read_shard(str(tmp_path / "cut.tar")))


@pytest.mark.parametrize("num_shards", [1, 3, 64, 1000])
def test_shards_are_ranges_of_the_keys(num_shards: int) -> None:
    keys = sorted(make_key(str(i)) for i in range(2000))
    shards = [shard_of(key, num_shards) for key in keys]
    assert shards == sorted(shards)
    assert min(shards) >= 0
    assert max(shards) < num_shards
    assert shard_of("0" * 24, num_shards) == 0
    assert shard_of("f" * 24, num_shards) == num_shards - 1
