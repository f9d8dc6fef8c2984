"""index: foreign tars of every dialect become readable, by us and by DALI, and what is left out has a reason."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharding.__main__ import main
from sharding.adopt import index_folder
from sharding.errors import InputError
from sharding.images import evaluation_batches
from sharding.index import read_index
from sharding.manifest import read_manifest
from sharding.plan import open_plan
from sharding.stream import read_samples
from sharding.verify import verify


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def image(number: int, kind: str = "JPEG", side: int = 24) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def photos(first: int, count: int, prefix: str = "") -> list[tuple[str, bytes]]:
    """As img2dataset writes them: jpg, json, txt of one key."""
    return [
        (f"{prefix}{i:09d}.{extension}", data)
        for i in range(first, first + count)
        for extension, data in (("jpg", image(i)), ("json", b'{"url": "x"}'), ("txt", b"words"))
    ]


def rejects(folder: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    return [(row["source"], row["reason"]) for row in rows]


LONG = "a" * 60 + "/" + "b" * 70 + "/"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_is_read_by_us_and_by_dali(format: int, tmp_path: Path) -> None:
    prefix = LONG if format != tarfile.USTAR_FORMAT else "x/"
    before = write_tar(tmp_path / "00000.tar", photos(0, 5, prefix), format)
    write_tar(tmp_path / "part" / "00001.tar", photos(100, 3, prefix), format)
    assert main(["index", str(tmp_path)]) == 0
    assert (tmp_path / "00000.tar").read_bytes() == before
    manifest = read_manifest(str(tmp_path))
    assert [(s.name, s.samples) for s in manifest.shards] == [("00000.tar", 5), ("part/00001.tar", 3)]
    plan = open_plan(str(tmp_path))
    stored = read_samples(plan, plan.in_order(0, 8))
    assert [s.key for s in stored] == [f"{prefix}{i:09d}" for i in (0, 1, 2, 3, 4, 100, 101, 102)]
    assert [s.members["jpg"] for s in stored] == [image(i) for i in (0, 1, 2, 3, 4, 100, 101, 102)]
    (batch,) = evaluation_batches(plan, batch_size=8, size=16)
    assert batch.images.shape == (8, 16, 16, 3)
    assert verify(str(tmp_path)).findings == ()

    dali = pytest.importorskip("nvidia.dali", reason="DALI is not installed")

    @dali.pipeline_def(batch_size=5, num_threads=1, device_id=None)
    def pipeline() -> object:
        return dali.fn.readers.webdataset(
            paths=[str(tmp_path / "00000.tar")], index_paths=[str(tmp_path / "00000.idx")], ext=["jpg"], name="reader"
        )

    pipe = pipeline()
    pipe.build()
    (output,) = pipe.run()
    assert [bytes(np.asarray(output[i])) for i in range(5)] == [image(i) for i in range(5)]
    assert pipe.epoch_size("reader") == 5


def test_odd_names_keep_their_key_or_are_rejected(tmp_path: Path) -> None:
    members = [
        ("holiday photo 100%.JPG", image(0)),
        ("zoë/plage.jpeg", image(1)),
        ("a.v2.0.jpg", image(2)),  # by webdataset's rule: key a, extension v2.0.jpg
        ("235 Track 2.0 (x).mp3", b"x"),
        ("235 Track 2.1 (x).mp3", b"y"),
        ("README", b"x"),
        ("._hidden.jpg", image(3)),
        ("../outside.jpg", image(4)),
        ("/etc/absolute.jpg", image(5)),
    ]
    write_tar(tmp_path / "a.tar", members, tarfile.PAX_FORMAT)
    manifest = index_folder(str(tmp_path))
    plan = open_plan(str(tmp_path))
    stored = read_samples(plan, plan.in_order(0, 9))
    assert [(s.key, list(s.members)) for s in stored] == [
        ("holiday photo 100%", ["jpg"]),
        ("zoë/plage", ["jpeg"]),
        ("a", ["v2.0.jpg"]),
    ]
    assert rejects(tmp_path) == [
        ("a.tar/235 Track 2", "bad_name"),  # both members: they share what webdataset calls the key
        ("a.tar/README", "bad_name"),
        ("a.tar", "bad_name"),  # the hidden one has no key
        ("a.tar/../outside", "unsafe_name"),
        ("a.tar//etc/absolute", "unsafe_name"),
    ]
    assert manifest.read == 8


def test_records_that_cannot_be_vouched_for(tmp_path: Path) -> None:
    png = image(1, "PNG")
    members = [
        ("good.jpg", image(0)),
        ("good.cls", b"3"),
        ("web.jpg", b"<html>not found</html>"),
        ("liar.jpg", png),
        ("honest.png", png),
        ("empty.jpg", b""),
        ("cut.jpg", image(2)[:-200]),
        ("cutpng.png", image(3, "PNG")[:-200]),
        ("class.jpg", image(4)),
        ("class.cls", b"cat"),
        ("minus.cls", b"-1"),
        ("evil.jpg", image(5)),
        ("evil.pyd", b"cos\nsystem\n(S'true'\ntR."),
        ("twice.jpg", image(6)),
        ("twice.jpg", image(7)),
        ("good.txt", b"too late"),
    ]
    write_tar(tmp_path / "a.tar", members)
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    write_tar(tmp_path / "c.tar", [("good.jpg", image(8)), ("other.jpg", image(9))])
    manifest = index_folder(str(tmp_path))
    assert rejects(tmp_path) == [
        ("a.tar/web", "not_an_image"),
        ("a.tar/liar", "wrong_format"),
        ("a.tar/empty", "empty"),
        ("a.tar/cut", "corrupt"),
        ("a.tar/cutpng", "corrupt"),
        ("a.tar/class", "bad_label"),
        ("a.tar/minus", "bad_label"),
        ("a.tar/evil", "refused_member"),
        ("a.tar/twice", "duplicate_member"),
        ("a.tar/good", "not_adjacent"),
        ("b.tar/link", "not_a_file"),
        ("b.tar/hard", "not_a_file"),
        ("b.tar/pipe", "not_a_file"),
        ("c.tar/good", "duplicate_key"),
    ]
    assert [(s.name, s.samples) for s in manifest.shards] == [("a.tar", 2), ("c.tar", 1)]
    assert manifest.read == 17
    assert verify(str(tmp_path)).findings == ()
    assert index_folder(str(tmp_path), decode=False).rejected == {
        **{reason: count for reason, count in manifest.rejected.items() if reason != "corrupt"}
    }


def test_a_bomb_is_told_by_its_header(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(out, "PNG")
    write_tar(tmp_path / "a.tar", [("bomb.png", out.getvalue()), ("good.jpg", image(0))])
    assert index_folder(str(tmp_path)).rejected == {"too_many_pixels": 1}


def test_a_tar_cut_anywhere_keeps_what_is_whole(tmp_path: Path) -> None:
    """Cut at every kind of place: inside data, inside a header, at a border, inside the end blocks."""
    whole = write_tar(tmp_path / "whole.tar", photos(0, 4))
    rows = read_rows(tmp_path)
    first_of_last = rows[3][0]
    cuts = {
        first_of_last.offset + 10: 3,  # inside the jpg of the last sample
        first_of_last.offset - 300: 3,  # inside its header
        first_of_last.offset - 512: 3,  # before its header
        rows[3][2].offset + 512: 4,  # before the end blocks
    }
    for cut, kept in cuts.items():
        for name in ("whole.tar", "manifest.json"):
            (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / "whole.tar").write_bytes(whole[:cut])
        manifest = index_folder(str(tmp_path))
        assert (manifest.kept, manifest.rejected) == (kept, {"shard_short": 1}), cut


def read_rows(folder: Path) -> list[tuple[object, ...]]:
    index_folder(str(folder))
    return read_index(str(folder / "whole.idx"))  # type: ignore[return-value]


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    """Python's own tarfile ends there without an error."""
    data = bytearray(write_tar(tmp_path / "whole.tar", photos(0, 4)))
    offset = read_rows(tmp_path)[2][0].offset - 512  # type: ignore[attr-defined]
    data[offset : offset + 100] = b"?" * 100
    (tmp_path / "whole.tar").write_bytes(data)
    (tmp_path / "manifest.json").unlink()
    manifest = index_folder(str(tmp_path))
    assert (manifest.kept, manifest.rejected) == (2, {"shard_short": 1})


def test_empty_tars_are_no_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "empty.tar", [])
    (tmp_path / "nothing.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 tars of .* gave none \(shard_short 1\)"):
        index_folder(str(tmp_path))
    assert not (tmp_path / "manifest.json").exists()
    write_tar(tmp_path / "full.tar", photos(0, 2))
    assert main(["index", str(tmp_path)]) == 0
    assert "2 of 3 tars hold no good sample" in capsys.readouterr().out
    assert [s.name for s in read_manifest(str(tmp_path)).shards] == ["full.tar"]


def test_again_does_nothing_until_a_tar_comes(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", photos(0, 2))
    index_folder(str(tmp_path))
    stamp = (tmp_path / "0.idx").stat().st_mtime_ns
    index_folder(str(tmp_path))
    assert (tmp_path / "0.idx").stat().st_mtime_ns == stamp
    write_tar(tmp_path / "1.tar", photos(2, 2))
    assert index_folder(str(tmp_path), threads=1).kept == 4


def test_a_built_set_is_left_alone(class_shards: str) -> None:
    with pytest.raises(InputError, match="built by job test"):
        index_folder(class_shards)


def test_the_result_does_not_depend_on_threads(tmp_path: Path) -> None:
    outcomes = []
    for threads in (1, 3):
        folder = tmp_path / str(threads)
        for number in range(6):
            write_tar(folder / f"{number}.tar", photos(number * 2, 4))  # half of each are duplicates of the next
        index_folder(str(folder), threads=threads)
        outcomes.append({p.name: p.read_bytes() for p in sorted(folder.iterdir())})
    assert outcomes[0] == outcomes[1]
    assert read_manifest(str(tmp_path / "1")).rejected == {"duplicate_key": 10}
    assert len(list(itertools.chain(outcomes[0]))) == 14
