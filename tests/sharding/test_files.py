"""Writes are whole or absent; manifests refuse sums that do not add up; both on a local disk and behind fsspec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sharding import files
from sharding.errors import InputError
from sharding.manifest import Label, Manifest, Shard, read_manifest, read_vocabulary, vocabulary_bytes, write_manifest


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "set") if request.param == "local" else f"memory://{tmp_path.name}/set"


def test_write_read_list_remove(folder: str) -> None:
    files.write_atomic(files.join(folder, "b", "one.bin"), b"12345")
    files.write_atomic(files.join(folder, ".markers", "x"), b"")
    files.write_atomic(files.join(folder, "a.bin"), b"a")
    assert files.list_files(folder) == ["a.bin", "b/one.bin"]
    assert files.list_files(folder, hidden=True) == [".markers/x", "a.bin", "b/one.bin"]
    assert files.read_range(files.join(folder, "b/one.bin"), 1, 3) == b"234"
    assert files.size_of(files.join(folder, "b/one.bin")) == 5
    files.remove(files.join(folder, "b"))
    files.remove(files.join(folder, "absent"))
    assert files.list_files(folder) == ["a.bin"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder: str) -> None:
    path = files.join(folder, "x.bin")
    files.write_atomic(path, b"old")
    with pytest.raises(RuntimeError, match="stop"), files.open_atomic(path) as file:  # noqa: PT012
        file.write(b"half of the new")
        raise RuntimeError("stop")
    assert files.read_bytes(path) == b"old"
    assert files.list_files(folder, hidden=True) == ["x.bin"]


def test_reading_past_the_end_is_an_error(folder: str) -> None:
    files.write_atomic(files.join(folder, "x"), b"123")
    with pytest.raises(EOFError, match="cut short"):
        files.read_range(files.join(folder, "x"), 1, 9)


MANIFEST = Manifest(
    "hashtags",
    {"short_side": 256},
    10,
    7,
    {"empty": 2, "truncated": 1},
    (Shard("s.tar", 9, "ab", 3), Shard("t.tar", 9, "cd", 4)),
    None,
)


def test_manifest_round_trip(folder: str) -> None:
    write_manifest(folder, MANIFEST)
    again = read_manifest(folder)
    assert replace(again, fingerprint="") == MANIFEST
    assert len(again.fingerprint) == 32
    write_manifest(folder + "2", replace(MANIFEST, shards=(Shard("s.tar", 9, "ac", 3), Shard("t.tar", 9, "cd", 4))))
    assert read_manifest(folder + "2").fingerprint != again.fingerprint


@pytest.mark.parametrize("wrong", [{"read": 11}, {"kept": 8}, {"rejected": {}}, {"shards": MANIFEST.shards[:1]}])
def test_a_manifest_that_loses_records_is_not_written(folder: str, wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="records were lost"):
        write_manifest(folder, replace(MANIFEST, **wrong))  # type: ignore[arg-type]
    assert not files.exists(files.join(folder, "manifest.json"))


def test_no_manifest_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_manifest(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="run the same command again"):
        read_manifest(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"format": 9}')
    with pytest.raises(InputError, match="must be of format 1, found 9"):
        read_manifest(str(tmp_path))
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(InputError, match="is not a manifest"):
        read_manifest(str(tmp_path))


def test_vocabulary_round_trip(tmp_path: Path) -> None:
    labels = [Label(0, "cat", ("cat", "kitty"), 12), Label(1, "猫", ("猫",), 0)]
    (tmp_path / "vocabulary.tsv").write_bytes(vocabulary_bytes(labels))
    assert read_vocabulary(str(tmp_path)) == read_vocabulary(str(tmp_path / "vocabulary.tsv")) == labels
    (tmp_path / "vocabulary.tsv").write_text("id\tname\n0\tcat\n")
    with pytest.raises(InputError, match="columns id, name, members, count"):
        read_vocabulary(str(tmp_path))
