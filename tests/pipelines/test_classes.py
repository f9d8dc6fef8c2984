"""Class ids against hand-sorted names, and the job end to end from folders and from a list."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.classes import classify_files, classify_rows, label_one, run, sort_names
from pipelines.options import Classes
from pipelines.shards import Reference
from sharding.errors import InputError
from sharding.manifest import read_manifest, read_vocabulary
from sharding.tar import read_shard


def put(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)


def labelled(folder):
    """Source -> class name, as plain readers would see it."""
    names = [label.name for label in read_vocabulary(folder)]
    rows = {}
    for shard in read_manifest(folder).shards:
        for sample in read_shard(f"{folder}/{shard.name}"):
            assert list(sample.members) == ["jpg", "json", "cls"]
            rows[json.loads(sample.members["json"])["source"]] = names[int(sample.members["cls"])]
    return rows


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(["dog/1.jpg", "dog/deep/2.jpg", "cat/1.jpg", "beside.jpg"]):
        put(tmp_path / "train" / name, number)
    return tmp_path


def test_names_sort_by_number_when_all_are_numbers():
    assert sort_names(["10", "9", "100"]) == ["9", "10", "100"]
    assert sort_names(["10", "9", "b", "9"]) == ["10", "9", "b"]


def test_label_one():
    assert label_one((Reference("a"), "dog"), {"dog": 3}) == Reference("a", labels=(3,))
    assert label_one((Reference("a"), "cow"), {"dog": 3}).reason == "unknown_label"


def test_rows_and_files(root, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("image,label\ndog/1.jpg,dog\ncat/1.jpg,\n,dog\n/abs.jpg,dog\n")
    found = [
        (reference.source, reference.reason, name) for reference, name in classify_rows(str(table), "image", "label")
    ]
    assert found == [
        ("dog/1.jpg", "", "dog"),
        ("cat/1.jpg", "unreadable_row", ""),
        ("list.csv:3", "unreadable_row", ""),
        ("/abs.jpg", "outside_root", ""),
    ]
    files = {reference.source: (name, reference.reason) for reference, name in classify_files(str(root / "train"))}
    assert files["dog/deep/2.jpg"] == ("dog", "")
    assert files["beside.jpg"] == ("", "no_label")


def test_folders_and_a_test_set_with_the_same_ids(root):
    run(Classes(images=str(root / "train"), output=str(root / "out")), [])
    assert labelled(str(root / "out")) == {"dog/1.jpg": "dog", "dog/deep/2.jpg": "dog", "cat/1.jpg": "cat"}
    assert [(label.id, label.name, label.count) for label in read_vocabulary(str(root / "out"))] == [
        (0, "cat", 1),
        (1, "dog", 2),
    ]
    assert read_manifest(str(root / "out")).rejected == {"no_label": 1}

    put(root / "val" / "dog" / "9.jpg")
    put(root / "val" / "zebra" / "9.jpg")
    vocabulary = str(root / "out" / "vocabulary.tsv")
    run(Classes(images=str(root / "val"), output=str(root / "out_val"), vocabulary=vocabulary), [])
    assert labelled(str(root / "out_val")) == {"dog/9.jpg": "dog"}
    assert [label.name for label in read_vocabulary(str(root / "out_val"))] == ["cat", "dog"]
    assert read_manifest(str(root / "out_val")).rejected == {"unknown_label": 1}


def test_a_list(root):
    rows = [
        {"file": "dog/1.jpg", "y": 10},
        {"file": "cat/1.jpg", "y": 9},
        {"file": "gone.jpg", "y": 9},
        {"file": "cat/1.jpg", "y": 10},
    ]
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run(
        Classes(images=str(root / "train"), output=str(root / "out"), list=str(root / "list.jsonl"), image_column="file",
                label_column="y"),
        [],
    )  # fmt: skip
    manifest = read_manifest(str(root / "out"))
    assert manifest.rejected == {"duplicate_source": 1, "missing_file": 1}
    assert manifest.read == 4
    assert [label.name for label in read_vocabulary(str(root / "out"))] == ["9", "10"]
    assert labelled(str(root / "out"))["dog/1.jpg"] == "10"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": "{root}"}, "holds train. Build each part by itself: --images .*/train"),
        ({"images": "{root}/train/cat"}, "holds 1 files and no folder.*--list"),
        ({"list": "{root}/list.csv"}, "must have a column 'label'; found 'image', 'class'.*--label-column"),
        ({"vocabulary": "{root}/empty.txt"}, "has none"),
        ({"max_pixels": 10**9}, "--max-pixels must be 1 to 178956970"),
    ],
)
def test_what_cannot_work(root, change, match):
    (root / "list.csv").write_text("image,class\ndog/1.jpg,dog\n")
    (root / "empty.txt").write_text("\n")
    given = {"images": str(root / "train")} | {
        k: v.format(root=root) if isinstance(v, str) else v for k, v in change.items()
    }
    with pytest.raises(InputError, match=match) as caught:
        run(Classes(output=str(root.parent / (root.name + "_out")), **given), [])
    assert "\n" not in str(caught.value)
    assert not (root.parent / (root.name + "_out")).exists()


def test_a_vocabulary_of_other_classes_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "photos/cat").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "photos/cat/1.jpg")
    (tmp_path / "other.tsv").write_text("id\tname\tmembers\tcount\n0\tdog\tdog\t3\n")
    options = Classes(
        images=str(tmp_path / "photos"), output=str(tmp_path / "out"), vocabulary=str(tmp_path / "other.tsv")
    )
    with pytest.raises(InputError, match=r"none of its 1 classes \(dog, \.\.\.\) is among cat"):
        run(options, [])
    assert not (tmp_path / "out").exists()
