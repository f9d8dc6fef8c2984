"""`omnishard build classes`: photos sorted into one folder per class, or named by a list -> shards with one class id each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam.pvalue import AsSingleton

from pipelines.images import Rejected
from pipelines.launch import absolute, build_dataset, facts_of, is_complete, photos_below
from pipelines.options import Classes
from pipelines.runner import beam_options
from pipelines.shards import Reference, WriteShards, list_photos
from pipelines.tables import choose_column, find_tables, has_rows, label_rows, photo_rows
from sharding.errors import InputError
from sharding.manifest import Label

# A record and the name of its class; the name is empty when the record is a reject already.
Classified = tuple[Reference, str]
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}


def run(options: Classes, beam_arguments: list[str]) -> None:
    """Check what was handed in, then build the dataset.

    Raises:
        InputError: before anything is written, except for a failure budget that is used up.
    """
    engine = beam_options(beam_arguments, Classes)
    options = absolute(options)
    facts = facts_of(options)
    if is_complete(options, facts):
        return
    sources = photos_below(options)
    tables: list[tuple[str, str, str]] = []  # path, image column, label column
    if options.list:
        for path in find_tables(options.list):
            image = choose_column(path, "--image-column", options.image_column)
            tables.append((path, image, choose_column(path, "--label-column", options.label_column)))
        has_rows("--list", [path for path, _, _ in tables])
    else:
        _check_folders(options.images, sources)
    given = label_rows(options.vocabulary) if options.vocabulary else None
    if given and not tables:
        folders = sorted({source.partition("/")[0] for source in sources if "/" in source})
        if not {row[0] for row in given} & set(folders):
            raise InputError(
                f"--vocabulary must name the class folders; none of its {len(given)} classes ({given[0][0]}, ...) is among "
                f"{', '.join(folders[:3])}: give the vocabulary of the matching training set, or leave it out."
            )

    def construct(pipeline: beam.Pipeline) -> None:
        if tables:
            classified = (
                pipeline | "Tables" >> beam.Create(tables) | "ReadRows" >> beam.FlatMap(lambda t: classify_rows(*t))
            )
        else:
            classified = (
                pipeline | "Root" >> beam.Create([options.images]) | "ListPhotos" >> beam.FlatMap(classify_files)
            )
        labels = (
            pipeline | "GivenLabels" >> beam.Create([number_labels(given)])
            if given
            else classified
            | "ClassName" >> beam.FlatMap(lambda pair: [pair[1]] if pair[1] else [])
            | "EachClass" >> beam.Distinct()
            | "AllClasses" >> beam.combiners.ToList()
            | "NumberLabels" >> beam.Map(lambda names: number_labels([[name] for name in sort_names(names)]))
        )
        ids = labels | "IdOfName" >> beam.Map(lambda labels: {label.name: label.id for label in labels})
        references = classified | "Label" >> beam.Map(label_one, AsSingleton(ids))
        references | "WriteShards" >> WriteShards(options, facts, "cls", labels)

    build_dataset(construct, options, engine, None if tables else len(sources))


def classify_files(images: str) -> Iterator[Classified]:
    """Every file below the root with its top folder as class; files beside the folders belong to none."""
    for reference in list_photos(images):
        folder, slash, _ = reference.source.partition("/")
        if not slash and not reference.reason:
            reference = Reference(reference.source, reason="no_label", message="not inside of a class folder")
        yield reference, "" if reference.reason else folder


def classify_rows(path: str, image_column: str, label_column: str) -> Iterator[Classified]:
    """Every row of a list with its class."""
    for source, row, verdict in photo_rows(path, image_column, [label_column]):
        name = row.get(label_column)
        if verdict is None and name in (None, ""):
            verdict = Rejected("unreadable_row", f"the row has no {label_column}")
        if verdict:
            yield Reference(source, reason=verdict.reason, message=verdict.message), ""
        else:
            yield Reference(source), " ".join(str(name).split())


def label_one(classified: Classified, ids: dict[str, int]) -> Reference:
    """The record with the id of its class, or rejected because the vocabulary lacks it."""
    reference, name = classified
    if reference.reason:
        return reference
    if name not in ids:
        return Reference(reference.source, reason="unknown_label", message=f"class {name!r}")
    return Reference(reference.source, labels=(ids[name],))


def sort_names(names: Iterable[str]) -> list[str]:
    """Class names in the order of their ids: by number when all are numbers, else by name."""
    names = set(names)
    if all(name.isascii() and name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def number_labels(rows: Iterable[list[str]]) -> list[Label]:
    """Labels with ids 0, 1, 2, ... for rows of a name and the words that stand for it."""
    return [Label(number, row[0], tuple(row[1:]), 0) for number, row in enumerate(rows)]


def _check_folders(images: str, sources: list[str]) -> None:
    folders = sorted({source.split("/")[0] for source in sources if "/" in source})
    if not folders:
        raise InputError(
            f"--images must hold one folder per class; {images} holds {len(sources)} files and no folder. "
            "Sort them into folders, or name their classes in a table: --list FILE."
        )
    if all(folder.lower() in _SPLITS for folder in folders):
        raise InputError(
            f"--images must hold one folder per class; {images} holds {' and '.join(folders)}. "
            f"Build each part by itself: --images {images}/{folders[-1]}."
        )
    odd = [folder for folder in folders if not folder.isprintable()]
    if odd:
        raise InputError(f"a class name is one line of printable text; found the folder {odd[0]!r}. Rename it.")
