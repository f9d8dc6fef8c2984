"""Tags against hand-written words of many scripts, the vocabulary against hand counts, and the job end to end."""

import json

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline as BeamTest
from apache_beam.testing.util import assert_that, equal_to
from PIL import Image

from pipelines.hashtags import (
    Caption,
    ChooseLabels,
    Columns,
    choose_labels,
    given_labels,
    label_one,
    merge,
    parse_tag_list,
    parse_tags,
    parse_words,
    read_captions,
    run,
)
from pipelines.options import Hashtags
from pipelines.runner import LOCAL
from pipelines.shards import Reference
from sharding.errors import InputError
from sharding.manifest import Label, read_manifest, read_vocabulary
from sharding.tar import read_shard


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("#Dog at the #beach, #dog!", ["dog", "beach"]),
        ("#cafe\u0301 #café #CAFÉ", ["café"]),  # decomposed, composed, upper case: one tag
        ("#नमस्ते #שָׁלוֹם #日本語", ["नमस्ते", "שָׁלוֹם", "日本語"]),  # vowel signs and points stay inside
        ("\uff03犬", ["犬"]),  # full-width sign
        ("#Straße", ["strasse"]),
        ("#\ufe0f\u20e3 #\u20e3 1\ufe0f\u20e3 #️⃣abc", []),  # keycap emoji, with and without selector
        ("C# a#b x_#c #123 # #! ##", []),
        ("#a1 #1a #snake_case (#x) ##twice", ["a1", "1a", "snake_case", "x", "twice"]),
        ("#love❤️ #one#two", ["love", "one"]),
        ("", []),
    ],
)
def test_parse_tags(text, tags):
    assert parse_tags(text) == tags


def test_tag_lists():
    assert parse_tag_list(["#Dog", "cat", "New York"]) == ["dog", "cat", "newyork"]
    assert parse_tag_list("sea, Instagram trip  sea") == ["sea", "instagram", "trip"]
    assert parse_tag_list(None) == parse_tag_list("") == parse_tag_list("123 ,") == []


def test_words():
    assert parse_words("A black Dog's ball, and the dogs don't run 3 times .") == [
        "black",
        "dog",
        "ball",
        "dogs",
        "run",
        "times",
    ]


def test_rows_of_a_table(tmp_path):
    table = tmp_path / "c.tsv"
    table.write_text("image\ttext\thashtags\na.jpg\tA dog #Puppy\tpet, animal\n\tlost\t\n../b.jpg\tx\ty\n")
    found = list(read_captions(Columns(str(table), "image", "text", "hashtags"), tags_from_words=True))
    assert found[0] == ("a.jpg", Caption("A dog #Puppy", ("animal", "dog", "pet", "puppy")))
    assert [(source, caption.reason) for source, caption in found[1:]] == [
        ("c.tsv:2", "unreadable_row"),
        ("../b.jpg", "outside_root"),
    ]


def test_merge():
    photo = Reference("a.jpg")
    rows = [Caption("two", ("x",)), Caption("one", ("y",)), Caption("two", ("x", "z"))]
    for order in (rows, rows[::-1]):
        assert merge("a.jpg", {"photos": [photo], "captions": order}) == (
            Reference("a.jpg", text="one\ntwo"),
            ("x", "y", "z"),
        )
    assert merge("a.jpg", {"photos": [photo], "captions": []})[0].reason == "no_caption"
    assert merge("a.jpg", {"photos": [], "captions": rows})[0].reason == "missing_file"
    refused = Caption(reason="outside_root", message="why")
    assert merge("../a", {"photos": [], "captions": [refused]})[0] == Reference(
        "../a", reason="outside_root", message="why"
    )


def test_choose_labels_counts_photos():
    options = Hashtags(images="i", output="o", captions="c", min_count=2)
    records = [(Reference(f"{i}.jpg"), tags) for i, tags in enumerate([("b", "a"), ("b", "c"), ("a",), ("d", "b"), ()])]
    records += [(Reference("gone.jpg", reason="missing_file"), ("c", "d"))]  # has no photo, so it does not count
    with BeamTest(runner=LOCAL) as pipeline:
        labels = pipeline | beam.Create(records) | ChooseLabels(options)
        assert_that(labels, equal_to([[Label(0, "b", ("b",), 0), Label(1, "a", ("a",), 0)]]))


def test_vocabulary_order_and_plurals():
    options = Hashtags(images="i", output="o", captions="c", min_count=1, tags_from_words=True)
    frequent = [("dogs", 5), ("dog", 4), ("grass", 4), ("bus", 4), ("cats", 9)]
    names = [(label.name, label.members) for label in choose_labels(options, frequent, [(-9, "cats")], 20)]
    assert names == [("cats", ("cats",)), ("bus", ("bus",)), ("dog", ("dog", "dogs")), ("grass", ("grass",))]


def test_label_one():
    ids = {"dog": 1, "puppy": 1, "cat": 0}
    assert label_one((Reference("a", text="t"), ("cat", "dog", "puppy", "x")), ids) == Reference("a", (0, 1), "t")
    assert label_one((Reference("a"), ("x", "y")), ids) == Reference("a", reason="no_label", message="none of x, y")
    lost = Reference("a", reason="missing_file")
    assert label_one((lost, ("cat",)), ids) == lost


def test_given_vocabulary(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("Dog puppy\n#Cat\tKitty\tGato\n")
    assert given_labels(str(path)) == [
        Label(0, "dog", ("dog", "puppy"), 0),
        Label(1, "cat", ("cat", "kitty", "gato"), 0),
    ]
    path.write_text("dog puppy\ncat puppy\n")
    with pytest.raises(InputError, match="'puppy' under 'dog' and 'cat'"):
        given_labels(str(path))


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a/1.jpg", "a/2.jpg", "3.jpg", "4.jpg", "alone.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    rows = [
        "image\ttext",
        "a/1.jpg\t#dog #sky",
        "a/2.jpg\t#puppy",
        "3.jpg\t#Sky",
        "4.jpg\t#rare",
        "gone.jpg\t#dog",
        "a/1.jpg\tmore #cat",
    ]
    (tmp_path / "captions.tsv").write_text("\n".join(rows) + "\n")
    return Hashtags(
        images=str(tmp_path / "photos"),
        captions=str(tmp_path / "captions.tsv"),
        output=str(tmp_path / "out"),
        min_count=1,
    )


def samples_of(folder):
    rows = {}
    for shard in read_manifest(folder).shards:
        for sample in read_shard(f"{folder}/{shard.name}"):
            facts = json.loads(sample.members["json"])
            rows[facts["source"]] = (json.loads(sample.members["tags.json"]), facts["text"], list(sample.members))
    return rows


def test_the_job(photos, tmp_path, capsys):
    (tmp_path / "v.txt").write_text("sky\ndog puppy\n")
    options = Hashtags(**{**vars(photos), "vocabulary": str(tmp_path / "v.txt")})
    run(options, [])
    members = ["jpg", "json", "tags.json"]
    assert samples_of(options.output) == {
        "a/1.jpg": ([0, 1], "#dog #sky\nmore #cat", members),
        "a/2.jpg": ([1], "#puppy", members),
        "3.jpg": ([0], "#Sky", members),
    }
    manifest = read_manifest(options.output)
    assert (manifest.job, manifest.read, manifest.kept) == ("hashtags", 6, 3)
    assert manifest.rejected == {"missing_file": 1, "no_caption": 1, "no_label": 1}
    assert [(label.name, label.count) for label in read_vocabulary(options.output)] == [("sky", 2), ("dog", 2)]
    assert "read 6 = kept 3 + rejected 3" in capsys.readouterr().out


def test_what_cannot_work_is_one_line_and_writes_nothing(photos, tmp_path):
    (tmp_path / "other.csv").write_text("file,words\na,b\n")
    (tmp_path / "v.txt").write_text("zebra\n")
    (tmp_path / "empty.csv").write_text("image,text\n")
    (tmp_path / "plain.csv").write_text("image,text\n3.jpg,a plain sentence\n")
    (tmp_path / "nothing").mkdir()
    bad = {
        "no tag reaches --min-count 3: the most frequent is 'sky' with 2 of 4": {"min_count": 3},
        "no photo has one of its 1 labels": {"vocabulary": str(tmp_path / "v.txt")},
        "add --tags-from-words": {"captions": str(tmp_path / "plain.csv")},
        "must have a column 'image'; found 'file', 'words'.*--image-column": {"captions": str(tmp_path / "other.csv")},
        "'text', 'caption' or 'hashtags'": {"captions": str(tmp_path / "other.csv"), "image_column": "file"},
        "--captions must hold rows": {"captions": str(tmp_path / "empty.csv")},
        "found no file": {"captions": str(tmp_path / "absent.csv")},
        "absent does not exist": {"images": str(tmp_path / "absent")},
        "holds no files": {"images": str(tmp_path / "nothing")},
        "--quality must be 1 to 95; found 0": {"quality": 0},
        "--vocabulary must be a file; .* does not exist": {"vocabulary": str(tmp_path / "absent.txt")},
        "is a folder. Give .*/vocabulary.tsv": {"vocabulary": str(tmp_path / "nothing")},
        "must lie outside of --images": {"output": str(tmp_path / "photos" / "out")},
    }
    for match, change in bad.items():
        options = Hashtags(**{**vars(photos), **change})
        with pytest.raises(InputError, match=match) as caught:
            run(options, [])
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
