"""WriteShards: the same bytes from any engine, order, split or interruption; nothing lost, nothing half-finished."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline as BeamTest
from apache_beam.testing.util import assert_that, equal_to
from PIL import Image

from pipelines import hashtags
from pipelines.__main__ import main
from pipelines.images import REASONS
from pipelines.options import Classes, Hashtags
from pipelines.runner import LOCAL, beam_options
from pipelines.shards import Reference, WriteShards, count_shards
from sharding.errors import InputError
from sharding.manifest import Label, read_manifest
from sharding.samples import make_key, shard_of
from sharding.tar import read_shard

WORDS = ["dog", "cat", "sea", "sky"]


def jpeg(seed, size=(60, 45), **options):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def make_input(folder, count=40, size=(60, 45)):
    """Photos with a caption each, among them a broken, an empty, a CMYK and a rotated one."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = {
        1: jpeg(1)[:900],
        2: b"",
        4: jpeg(4, exif=exif),
    }
    for number in range(count):
        (photos / f"{number:03d}.jpg").write_bytes(odd.get(number) if number in odd else jpeg(number, size))
    Image.new("CMYK", (50, 40), (0, 200, 100, 0)).save(photos / "003.jpg")
    rows = [f"{number:03d}.jpg\ta #{WORDS[number % 4]} #{WORDS[number % 3]}" for number in range(count)]
    (folder / "captions.tsv").write_text("\n".join(["image\ttext", *rows]) + "\n")
    return rows


def job(folder, output, **changes):
    given = {"captions": str(folder / "captions.tsv"), "min_count": 1, "shards": 6} | changes
    return Hashtags(images=str(folder / "photos"), output=str(output), **given)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def same(one, other):
    first, second = contents(one), contents(other)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_input(folder)
    hashtags.run(job(folder, folder / "out"), [])
    return folder


def test_the_folder_adds_up_and_tells_what_became_of_odd_photos(data):
    manifest = read_manifest(str(data / "out"))
    assert (manifest.read, manifest.kept, manifest.rejected) == (40, 38, {"empty": 1, "truncated": 1})
    samples = [(shard, sample) for shard in manifest.shards for sample in read_shard(str(data / "out" / shard.name))]
    keys = [sample.key for _, sample in samples]
    assert keys == sorted(make_key(f"{n:03d}.jpg") for n in range(40) if n not in (1, 2))
    assert all(shard.name == f"shard-{shard_of(sample.key, 6):06d}.tar" for shard, sample in samples)
    for shard in manifest.shards:
        assert hashlib.sha256((data / "out" / shard.name).read_bytes()).hexdigest() == shard.sha256
    facts = {row["source"]: row for row in (json.loads(sample.members["json"]) for _, sample in samples)}
    assert facts["003.jpg"]["converted"] == ["cmyk"]
    assert facts["004.jpg"]["converted"] == ["exif orientation 6"]
    assert (facts["004.jpg"]["width"], facts["004.jpg"]["height"], facts["004.jpg"]["original"]) == (45, 60, [60, 45])
    rows = [json.loads(line) for line in (data / "out" / "rejects.jsonl").read_text().splitlines()]
    assert {row["source"]: (row["reason"], row["sha256"]) for row in rows} == {
        "001.jpg": ("truncated", hashlib.sha256((data / "photos" / "001.jpg").read_bytes()).hexdigest()),
        "002.jpg": ("empty", ""),
    }
    assert all(list(row) == ["source", "stage", "reason", "message", "sha256", "transient"] for row in rows)
    page = (data / "out" / "report.html").read_text()
    assert "40 read = 38 kept + 2 rejected" in page
    assert all(
        words in page for words in ("001.jpg", "002.jpg", "cmyk", "exif orientation 6", "The file has no bytes.")
    )
    assert not (data / "out" / ".markers").exists()


def test_nothing_in_the_folder_tells_where_or_when_it_was_made(data):
    for name, content in contents(data / "out").items():
        assert str(data).encode() not in content, name
        assert os.uname().nodename.encode() not in content or len(os.uname().nodename) < 4, name


@pytest.mark.parametrize("processes", [1, 2])
def test_many_processes_other_order_and_split_give_the_same_bytes(data, tmp_path, processes):
    header, *rows = (data / "captions.tsv").read_text().splitlines()
    np.random.default_rng(processes).shuffle(rows)
    (tmp_path / "a.tsv").write_text("\n".join([header, *rows[:13]]))
    (tmp_path / "b.tsv").write_text("\n".join([header, *rows[13:]]))
    options = job(data, tmp_path / "out", captions=str(tmp_path / "?.tsv"), threads=3)
    hashtags.run(options, ["--direct_running_mode=multi_processing", f"--direct_num_workers={processes}"])
    same(data / "out", tmp_path / "out")


def test_the_sequence_of_samples_does_not_depend_on_the_number_of_shards(data, tmp_path):
    hashtags.run(job(data, tmp_path / "out", shards=1), [])
    one, six = read_manifest(str(tmp_path / "out")), read_manifest(str(data / "out"))
    assert len(one.shards) == 1
    assert len(six.shards) == 6
    assert list(read_shard(str(tmp_path / "out" / one.shards[0].name))) == [
        sample for shard in six.shards for sample in read_shard(str(data / "out" / shard.name))
    ]


def test_killed_and_run_again_ends_in_the_same_bytes(tmp_path):
    make_input(tmp_path, 48, (800, 600))
    words = ["--images", str(tmp_path / "photos"), "--captions", str(tmp_path / "captions.tsv"), "--min-count", "1"]
    words += ["--shards", "12", "--threads", "1", "--output"]
    output = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines", "hashtags", *words, str(output)],
        cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while not list(output.glob(".markers/*.json")) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finished = {json.loads(path.read_bytes())["shard"]["name"] for path in output.glob(".markers/*.json")}
    assert 0 < len(finished) < 12
    assert not (output / "manifest.json").exists()
    (output / ".shard-000099.tar.part-0").write_bytes(b"left by the crash")
    before = {name: (output / name).stat().st_mtime_ns for name in finished}

    assert main(["hashtags", *words, str(output)]) == 0
    assert {name: (output / name).stat().st_mtime_ns for name in finished} == before
    assert main(["hashtags", *words, str(tmp_path / "whole")]) == 0
    same(output, tmp_path / "whole")


def test_a_finished_folder_is_left_alone(data, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in (data / "out").iterdir()}
    hashtags.run(job(data, data / "out", threads=7, max_reject_share=0.5), [])
    assert "already complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (data / "out").iterdir()} == before
    with pytest.raises(InputError, match="built with quality 90, now it is 80"):
        hashtags.run(job(data, data / "out", quality=80), [])
    (tmp_path / "letter.txt").write_text("not a dataset")
    with pytest.raises(InputError, match=r"holds letter\.txt"):
        hashtags.run(job(data, tmp_path), [])


def test_the_failure_budget(data, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(
        InputError, match=r"2 of 40 records \(5.0%\) are damaged, more than 1.00%: .* 1, .* 1, e.g. 00[12].jpg"
    ):
        hashtags.run(job(data, output, max_reject_share=0.01), [])
    assert not (output / "manifest.json").exists()
    assert len((output / "rejects.jsonl").read_text().splitlines()) == 2
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.tar")}
    assert len(before) == 6
    hashtags.run(job(data, output, max_reject_share=0.05), [])
    assert {path.name: path.stat().st_mtime_ns for path in output.glob("*.tar")} == before
    same(data / "out", output)


def test_a_mended_photo_is_seen_by_the_rerun(tmp_path):
    make_input(tmp_path, 12)
    options = job(tmp_path, tmp_path / "out", shards=1, max_reject_share=0.0)
    with pytest.raises(InputError, match="2 of 12"):
        hashtags.run(options, [])
    (tmp_path / "photos" / "001.jpg").write_bytes(jpeg(1))
    (tmp_path / "photos" / "002.jpg").write_bytes(jpeg(2))
    hashtags.run(options, [])
    assert read_manifest(options.output).kept == 12


def test_nothing_kept_is_no_dataset(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.jpg").write_bytes(b"<html>")
    words = ["--images", str(tmp_path / "photos"), "--output", str(tmp_path / "out")]
    assert main(["classes", *words]) == 2
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_every_reference_is_kept_or_rejected(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(jpeg(0))
    options = Classes(images=str(tmp_path / "in"), output=str(tmp_path / "out"), shards=3)
    references = [
        Reference("a.jpg", (0,)),
        Reference("b.jpg", (1,)),
        Reference("a.jpg", (1,)),
        Reference("c.jpg", (0,)),
    ]
    references += [Reference("d.jpg", reason="no_label", message="said before")]
    with BeamTest(runner=LOCAL) as pipeline:
        labels = pipeline | "Labels" >> beam.Create([[Label(0, "x", (), 0), Label(1, "y", (), 0)]])
        kept = pipeline | "References" >> beam.Create(references) | WriteShards(options, {}, "cls", labels)
        assert_that(kept, equal_to([2]))
    manifest = read_manifest(options.output)
    assert (manifest.read, manifest.kept) == (5, 2)
    assert manifest.rejected == {"duplicate_source": 1, "missing_file": 1, "no_label": 1}
    assert set(manifest.rejected) <= set(REASONS)
    # Of two records with one source the first by its canonical text is taken: label 0.
    labels_of = {
        s.key: s.members["cls"] for shard in manifest.shards for s in read_shard(f"{options.output}/{shard.name}")
    }
    assert labels_of == {make_key("a.jpg"): b"0", make_key("b.jpg"): b"1"}


def test_number_of_shards():
    def number(read, **given):
        return count_shards(read, Classes(images="i", output="o", **given))

    assert [number(read) for read in (0, 1, 1000, 1001, 2500)] == [1, 1, 1, 2, 3]
    assert number(2500, shards=7) == 7
    assert number(2500, samples_per_shard=100) == 25


def test_engines():
    assert beam_options([], Hashtags).get_all_options()["runner"] == LOCAL
    assert beam_options(["--runner=DirectRunner"], Hashtags).get_all_options()["runner"] == LOCAL
    assert (
        beam_options(["--runner=FlinkRunner", "--parallelism=4"], Hashtags).get_all_options()["runner"] == "FlinkRunner"
    )
    for words, match in (
        (["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"], "DaskRunner does"),
        (["--min-cuont", "3"], "neither of the job nor of Beam. Did you mean --min-count"),
        (["--runner=FlinkRunner", "--min-cuont=3"], "Did you mean --min-count"),
        (["--zzz"], "neither of the job nor of Beam"),
    ):
        with pytest.raises(InputError, match=match):
            beam_options(words, Hashtags)


@pytest.mark.parametrize("words", [["--help"], ["hashtags", "--help"], ["classes", "--help"]])
def test_help_does_not_load_beam(words):
    code = f"""
import sys
from pipelines.__main__ import main
try:
    main({words!r})
finally:
    assert not {{"apache_beam", "torch", "PIL", "pyarrow", "numpy"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "omnishard build hashtags" in done.stdout or "omnishard build classes" in done.stdout


def test_wrong_words_are_one_line_and_code_2(capsys):
    assert main(["hashtagz"]) == 2
    assert main(["classes", "--images", "a"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "Did you mean hashtags?" in lines[0]
    assert "--output" in lines[1]
