"""Tables in every form give the same rows; a broken one is one line for the user, a broken row is a row of its own."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from pipelines.tables import choose_column, columns_of, find_tables, has_rows, label_rows, photo_rows, read_rows
from sharding.errors import InputError

ROWS = [{"image": "a.jpg", "text": 'He said "hi"'}, {"image": "b/ü.jpg", "text": "two, three"}]


def write(path, rows=ROWS):
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return str(path)
    if name.endswith(".jsonl"):
        lines = [json.dumps(row) for row in rows]
    elif name.endswith(".tsv"):
        lines = ["image\ttext"] + ["\t".join(row.values()) for row in rows]
    else:
        lines = ["image,text"] + [
            ",".join('"' + cell.replace('"', '""') + '"' for cell in row.values()) for row in rows
        ]
    data = "\n".join([*lines, ""]).encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return str(path)


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl", "parquet", "tsv.gz", "csv.gz", "jsonl.gz"])
def test_all_forms_hold_the_same_rows(tmp_path, ending):
    path = write(tmp_path / f"captions.{ending}")
    assert columns_of(path) == ["image", "text"]
    assert list(read_rows(path, ["image", "text", "absent"])) == ROWS
    assert list(read_rows(path, ["text"])) == [{"text": row["text"]} for row in ROWS]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeffimage,text\nx.jpg,y\n".encode())
    assert columns_of(str(tmp_path / "a.csv")) == ["image", "text"]


def test_patterns_and_lists(tmp_path):
    one, two = write(tmp_path / "part-1.tsv"), write(tmp_path / "part-2.tsv")
    assert find_tables(str(tmp_path / "part-*.tsv")) == [one, two]
    assert find_tables(f"{two}, {one},{one}") == [one, two]


def refuse(match, function, *arguments):
    with pytest.raises(InputError, match=match) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_a_table(tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    refuse("found no file", find_tables, str(tmp_path / "absent.csv"))
    refuse("is empty", find_tables, str(tmp_path / "empty.csv"))
    refuse("ends in .tsv", find_tables, str(tmp_path / "photo.jpg"))


def test_unreadable_tables(tmp_path):
    (tmp_path / "latin.csv").write_bytes("image,text\na.jpg,café\n".encode("latin-1"))
    refuse("UTF-8.*0xe9", lambda: list(read_rows(str(tmp_path / "latin.csv"), ["text"])))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    refuse("cannot be read", columns_of, str(tmp_path / "broken.parquet"))
    whole = gzip.compress(b"image\ttext\n" + b"a.jpg\tx\n" * 5000)
    (tmp_path / "cut.tsv.gz").write_bytes(whole[: len(whole) // 2])
    refuse("cannot be read", lambda: list(read_rows(str(tmp_path / "cut.tsv.gz"), ["image"])))


def test_a_missing_column_is_named_with_those_found_and_the_option(tmp_path):
    path = write(tmp_path / "captions.tsv")
    assert choose_column(path, "--image-column", "image") == "image"
    refuse(
        "'imgae'; found 'image', 'text'. Did you mean image. .*--image-column",
        choose_column,
        path,
        "--image-column",
        "imgae",
    )


def test_a_header_alone_is_no_table(tmp_path):
    (tmp_path / "a.csv").write_text("image,text\n")
    refuse("hold rows", has_rows, "--captions", [str(tmp_path / "a.csv")])


def test_rows_that_cannot_name_a_photo(tmp_path):
    lines = ['{"image": "./x//a.jpg"}', "{broken", '{"image": 7}', '{"image": "../up.jpg"}', '{"image": "/etc/b.jpg"}']
    lines += [
        r'{"image": "half\ud800.jpg"}',
        '{"image": "https://x.org/c.jpg"}',
        '{"image": "a/../../d.jpg"}',
        '["no", "object"]',
        '{"text": "none"}',
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    rows = photo_rows(str(tmp_path / "rows.jsonl"), "image", [])
    found = [(source, verdict.reason if verdict else "") for source, _, verdict in rows]
    assert found == [
        ("x/a.jpg", ""),
        ("rows.jsonl:2", "unreadable_row"),
        ("rows.jsonl:3", "unreadable_row"),
        ("../up.jpg", "outside_root"),
        ("/etc/b.jpg", "outside_root"),
        ("rows.jsonl:6", "unreadable_row"),
        ("https://x.org/c.jpg", "outside_root"),
        ("a/../../d.jpg", "outside_root"),
        ("rows.jsonl:9", "unreadable_row"),
        ("rows.jsonl:10", "unreadable_row"),
    ]


def test_a_row_with_too_many_cells_is_not_guessed_at(tmp_path):
    (tmp_path / "a.tsv").write_text("image\ttext\na.jpg\tone\ttwo\nb.jpg\tok\nc.jpg\n")
    assert list(read_rows(str(tmp_path / "a.tsv"), ["image", "text"])) == [
        {},
        {"image": "b.jpg", "text": "ok"},
        {"image": "c.jpg"},
    ]


def test_vocabulary_files(tmp_path):
    (tmp_path / "ours.tsv").write_text("id\tname\tmembers\tcount\n0\tgrand piano\t\t4\n1\tcat\tcat kitty\t9\n")
    (tmp_path / "plain.txt").write_text("dog\tpuppy\n\ncat\n")
    (tmp_path / "twice.txt").write_text("dog\ncat\ndog\n")
    (tmp_path / "none.txt").write_text("\n")
    assert label_rows(str(tmp_path / "ours.tsv")) == [["grand piano"], ["cat", "cat", "kitty"]]
    assert label_rows(str(tmp_path / "plain.txt")) == [["dog", "puppy"], ["cat"]]
    refuse("'dog' twice", label_rows, str(tmp_path / "twice.txt"))
    refuse("has none", label_rows, str(tmp_path / "none.txt"))
