"""Tables that people bring (captions, lists of labels), row by row, whatever the file: tsv, csv, jsonl, parquet, also .gz.

A file is one Beam element and is streamed, so a table may be larger than memory. A table that cannot be read at all is the
user's to mend (InputError, before anything is written); a single bad row becomes a record of its own and is rejected.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import gzip
import io
import json
import os
import posixpath
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, cast

import pyarrow
from pyarrow import parquet

from pipelines.images import Rejected
from sharding.errors import InputError
from sharding.files import exists, is_local, open_read, size_of
from sharding.options import nearest

Row = dict[
    str, object
]  # column -> cell; text, or what jsonl and parquet hold. An empty row stands for an unreadable one.
_ENDINGS = (".tsv", ".csv", ".jsonl", ".parquet")
_MOST_CELL = 1 << 24  # characters in one cell of csv; the csv module's own limit is 128 KiB


def find_tables(pattern: str) -> list[str]:
    """The files that a path, a pattern or several with commas between them stand for, sorted, each once.

    Raises:
        InputError: for a file that does not exist, is empty, or has another ending than .tsv .csv .jsonl .parquet (.gz).
    """
    found: set[str] = set()
    for part in filter(None, (part.strip() for part in pattern.split(","))):
        matches = _matches(part)
        if not matches:
            raise InputError(f"a table must exist; found no file {part}. Give a path, or a pattern in quotes.")
        found.update(matches)
    if not found:
        raise InputError("a table is a path, a pattern, or several with commas between; found nothing.")
    for path in sorted(found):
        if _ending(path) not in _ENDINGS:
            raise InputError(
                f"a table ends in {', '.join(_ENDINGS)} (text ones also .gz); found {path}. Rename or convert it."
            )
        if size_of(path) == 0:
            raise InputError(f"a table must hold rows; {path} is empty (0 bytes).")
    return sorted(found)


def columns_of(path: str) -> list[str]:
    """Column names of a table: its header, for jsonl the keys of its first 100 rows.

    Raises:
        InputError: when the file cannot be read as what its ending says.
    """
    names: dict[str, None] = {}
    with _readable(path) as file:
        if _ending(path) == ".parquet":
            return [str(name) for name in parquet.ParquetFile(file).schema_arrow.names]
        lines = _lines(file, path)
        if _ending(path) == ".jsonl":
            for _, row in zip(range(100), _json_rows(lines), strict=False):
                names.update(dict.fromkeys(row))
        else:
            names.update(dict.fromkeys(next(_cells(lines, path), [])))
    if not names:
        way = (
            "Each line is a JSON object." if _ending(path) == ".jsonl" else "The first line of tsv and csv names them."
        )
        raise InputError(f"a table names its columns; {path} has none. {way}")
    return list(names)


def choose_column(path: str, option: str, name: str) -> str:
    """The name, when the table has such a column.

    Raises:
        InputError: naming the columns found and the option, when it has not.
    """
    columns = columns_of(path)
    if name not in columns:
        raise InputError(
            f"{path} must have a column {name!r}; found {', '.join(map(repr, columns))}."
            f"{nearest(name, columns)} Name the column with {option}."
        )
    return name


def read_rows(path: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a table in its order, each with only `columns` (a column the row lacks is left out).

    A row that cannot be parsed comes as an empty one.

    Raises:
        InputError: when the file as a whole cannot be read: not UTF-8, broken parquet, cut gzip.
    """
    with _readable(path) as file:
        if _ending(path) == ".parquet":
            table = parquet.ParquetFile(file)
            there = [name for name in columns if name in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=4096, columns=there):
                yield from cast("list[Row]", batch.to_pylist())
            return
        lines = _lines(file, path)
        rows = _json_rows(lines) if _ending(path) == ".jsonl" else _named_rows(_cells(lines, path))
        for row in rows:
            yield {name: row[name] for name in columns if name in row}


def _matches(part: str) -> list[str]:
    if is_local(part):
        part = os.path.abspath(part)  # workers may run elsewhere
        return glob.glob(part, recursive=True) if glob.has_magic(part) and not exists(part) else [part] * exists(part)
    if not glob.has_magic(part):
        return [part] * exists(part)
    import fsspec

    return [file.full_name for file in fsspec.open_files(part, "rb")]


def _ending(path: str) -> str:
    name = path.lower().removesuffix(".gz")
    return next((ending for ending in _ENDINGS if name.endswith(ending)), "")


@contextlib.contextmanager
def _readable(path: str) -> Iterator[BinaryIO]:
    """The file, opened; what the readers raise on broken content becomes one InputError that names the file."""
    try:
        with open_read(path) as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(
            f"a table is UTF-8 text; {path} is not (byte {error.object[error.start]:#04x}). "
            "Convert it: iconv -f ISO-8859-1 -t UTF-8."
        ) from error
    except (EOFError, OSError, zlib.error, csv.Error, pyarrow.ArrowException) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the table {path} cannot be read: {words}. Restore or convert it.") from error


def _lines(file: BinaryIO, path: str) -> Iterator[str]:
    raw = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.lower().endswith(".gz") else file
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")


def _cells(lines: Iterator[str], path: str) -> Iterator[list[str]]:
    """tsv has no quoting: a quotation mark in a caption is a character like any other. csv quotes as spreadsheets do."""
    csv.field_size_limit(_MOST_CELL)
    if _ending(path) == ".tsv":
        return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(lines)


def _named_rows(cells: Iterator[list[str]]) -> Iterator[Row]:
    header = next(cells, [])
    for row in cells:
        if row:
            yield dict(zip(header, row, strict=False)) if len(row) <= len(header) else {}


def _json_rows(lines: Iterator[str]) -> Iterator[Row]:
    for line in lines:
        if line.strip():
            try:
                row = json.loads(line)
                if "\\ud" in line.lower():  # an escape may stand for half a character, which no file can hold
                    json.dumps(row, ensure_ascii=False).encode()
            except (json.JSONDecodeError, UnicodeEncodeError):
                row = {}
            yield row if isinstance(row, dict) else {}


def has_rows(option: str, paths: Sequence[str]) -> None:
    """Raise InputError unless one of the tables holds a row below its header."""
    if all(next(read_rows(path, ()), None) is None for path in paths):
        raise InputError(f"{option} must hold rows; {', '.join(paths)} has a header and nothing below it.")


def photo_rows(path: str, image_column: str, columns: Sequence[str]) -> Iterator[tuple[str, Row, Rejected | None]]:
    """(source id, row with `columns`, verdict) of each row; the verdict tells why a row cannot name a photo.

    A row without a usable image cell is called after its table: `captions.tsv:17` is the 17th row below the header.
    """
    for number, row in enumerate(read_rows(path, [image_column, *columns]), 1):
        cell = row.get(image_column)
        if not isinstance(cell, str) or not cell.strip():
            found = f"found {cell!r}" if cell else "it is empty or missing"
            verdict = Rejected("unreadable_row", f"the row must name a photo in {image_column}; {found}")
            yield f"{posixpath.basename(path)}:{number}", {}, verdict
            continue
        source = posixpath.normpath(cell.strip())
        if "://" in cell or source.startswith(("/", "../")) or source == "..":
            yield cell.strip(), row, Rejected("outside_root", "a photo is named by its path below --images")
        else:
            yield source, row, None


def label_rows(path: str) -> list[list[str]]:
    """The labels of a vocabulary file in their order, each as its name and then the words that stand for it.

    The file is a vocabulary.tsv of a dataset, or has a label per line, with synonyms after tabs.

    Raises:
        InputError: when there is none, or one name twice.
    """
    with _readable(path) as file:
        lines = [line.strip("\r\n") for line in io.TextIOWrapper(file, encoding="utf-8-sig") if line.strip()]
    if lines and lines[0].startswith("id\tname\tmembers"):
        cells = [line.split("\t") for line in lines[1:]]
        rows = [[row[1], *row[2].split()] for row in cells if len(row) >= 3]
    else:
        rows = [[cell.strip() for cell in line.split("\t") if cell.strip()] for line in lines]
    if not rows:
        raise InputError(f"a vocabulary has a label per line; {path} has none.")
    names = [row[0] for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice:
        raise InputError(f"a vocabulary names each label once; {path} has {twice!r} twice.")
    return rows
