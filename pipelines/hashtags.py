"""`omnishard build hashtags`: photos and a table of captions -> shards with the label ids of each photo's hashtags.

Tags are the labels of weakly supervised pretraining (Mahajan et al. 2018, sec. 2): they are parsed from captions, made one
by Unicode normalisation and case folding, and kept when enough photos carry them, or when a given vocabulary knows them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.pvalue import AsSingleton

from pipelines.launch import absolute, build_dataset, facts_of, is_complete, photos_below
from pipelines.options import Hashtags
from pipelines.runner import beam_options
from pipelines.shards import Reference, WriteShards, list_photos
from pipelines.tables import Row, choose_column, columns_of, find_tables, has_rows, label_rows, photo_rows
from sharding.errors import InputError
from sharding.manifest import Label

# English words that say nothing about what a photo shows.
_STOP = """
    a about above across after again against ahead all along also always am among an and another any anyone
    anything are around as at away back be because been before behind being below beneath beside besides between
    beyond both but by can cannot could did do does doing done down during each either else even ever every
    everyone few for from front further get gets getting go goes going got had has have having he her here hers
    herself him himself his how i if in inside into is it its itself just like lot lots many may me might more
    most much must my myself near next no nobody nor not nothing now of off on once one ones only onto or other
    others our ours out outside over own past per same several shall she should since so some someone something
    still such than that the their theirs them themselves then there these they this those though three through
    to together too toward towards two under until up upon us very via was we were what when where whether which
    while who whom whose why will with within without would yet you your yours yourself
"""
STOP_WORDS = frozenset(_STOP.split())


@dataclass(frozen=True)
class Caption:
    """What the rows say of one photo: its text, its tags, or the verdict on a row that cannot be used."""

    text: str | None = None
    tags: tuple[str, ...] = ()
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read; "" for one that it does not have."""

    path: str
    image: str
    text: str
    hashtags: str


def run(options: Hashtags, beam_arguments: list[str]) -> None:
    """Check what was handed in, then build the dataset.

    Raises:
        InputError: before anything is written, except for a failure budget that is used up.
    """
    engine = beam_options(beam_arguments, Hashtags)
    options = absolute(options)
    facts = facts_of(options)
    if is_complete(options, facts):
        return
    sources = photos_below(options)
    tables = [choose_columns(path, options) for path in find_tables(options.captions)]
    has_rows("--captions", [table.path for table in tables])
    given = given_labels(options.vocabulary) if options.vocabulary else None

    def construct(pipeline: beam.Pipeline) -> None:
        captions = (
            pipeline
            | "Tables" >> beam.Create(tables)
            | "OnePerWorker" >> beam.Reshuffle()
            | "ReadCaptions"
            >> beam.FlatMap(read_captions, options.tags_from_words).with_output_types(tuple[str, Caption])
        )
        photos = (
            pipeline
            | "Root" >> beam.Create([options.images])
            | "ListPhotos" >> beam.FlatMap(list_photos)
            | "BySource" >> beam.Map(lambda photo: (photo.source, photo)).with_output_types(tuple[str, Reference])
        )
        records = (
            {"photos": photos, "captions": captions} | "Join" >> beam.CoGroupByKey() | "Merge" >> beam.MapTuple(merge)
        )
        if given:
            known = frozenset(tag for label in given for tag in label.members)
            matches = (
                records
                | "KnownTags" >> beam.Filter(lambda record: not known.isdisjoint(record[1]))
                | "CountKnown" >> beam.combiners.Count.Globally()
            )
            labels = (
                pipeline
                | "GivenLabels" >> beam.Create([given])
                | "CheckMatch" >> beam.Map(check_match, AsSingleton(matches))
            )
        else:
            labels = records | "ChooseLabels" >> ChooseLabels(options)
        ids = labels | "IdOfTag" >> beam.Map(lambda labels: {tag: x.id for x in labels for tag in x.members})
        references = records | "Label" >> beam.Map(label_one, AsSingleton(ids))
        references | "WriteShards" >> WriteShards(options, facts, "tags.json", labels)

    build_dataset(construct, options, engine, len(sources))


# A photo's record with its tags, before they are labels.
Tagged = tuple[Reference, tuple[str, ...]]


class ChooseLabels(beam.PTransform):  # type: ignore[misc]
    """Tagged records -> one list of labels: the tags that at least `min_count` photos carry, the most frequent first."""

    def __init__(self, options: Hashtags) -> None:
        super().__init__()
        self.options = options

    def expand(self, records: beam.PCollection) -> beam.PCollection:
        """Count photos per tag, then choose once all are counted."""
        tagged = records | "WithPhoto" >> beam.Filter(lambda record: not record[0].reason)
        total = tagged | "CountPhotos" >> beam.combiners.Count.Globally()
        counts = (
            tagged
            | "EachTag" >> beam.FlatMap(lambda record: record[1]).with_output_types(str)
            | "CountTags" >> beam.combiners.Count.PerElement()
        )
        top = (
            counts
            | "ByCount" >> beam.MapTuple(lambda tag, count: (-count, tag))
            | "MostFrequent" >> beam.combiners.Top.Smallest(1)
        )
        frequent = counts | "Frequent" >> beam.Filter(lambda pair: pair[1] >= self.options.min_count)
        return (
            records.pipeline
            | "Once" >> beam.Create([self.options])
            | "Choose" >> beam.Map(choose_labels, beam.pvalue.AsList(frequent), AsSingleton(top), AsSingleton(total))
        )


def choose_columns(path: str, options: Hashtags) -> Columns:
    """The columns of a table that the job reads.

    Raises:
        InputError: when one that was asked for is missing, or there is neither text nor tags.
    """
    image = choose_column(path, "--image-column", options.image_column)
    columns = columns_of(path)
    text = options.text_column or next((name for name in ("text", "caption") if name in columns), "")
    hashtags = options.hashtags_column or ("hashtags" if "hashtags" in columns else "")
    if options.text_column:
        choose_column(path, "--text-column", text)
    if options.hashtags_column:
        choose_column(path, "--hashtags-column", hashtags)
    if not text and not hashtags:
        raise InputError(
            f"{path} must have a column 'text', 'caption' or 'hashtags'; found {', '.join(map(repr, columns))}. "
            "Name the column with --text-column or --hashtags-column."
        )
    return Columns(path, image, text, hashtags)


def read_captions(columns: Columns, tags_from_words: bool) -> Iterator[tuple[str, Caption]]:
    """(source id, caption) of each row of a table."""
    wanted = [name for name in (columns.text, columns.hashtags) if name]
    for source, row, verdict in photo_rows(columns.path, columns.image, wanted):
        if verdict:
            yield source, Caption(reason=verdict.reason, message=verdict.message)
            continue
        text = _words_of(row, columns.text)
        tags = set(parse_tags(text))
        if tags_from_words:
            tags.update(parse_words(text))
        if columns.hashtags:
            tags.update(parse_tag_list(row.get(columns.hashtags)))
        yield source, Caption(text or None, tuple(sorted(tags)))


def merge(source: str, groups: Mapping[str, Iterable[object]]) -> Tagged:
    """The record of one source: its photo and all rows that name it, whatever their order."""
    photos = [photo for photo in groups["photos"] if isinstance(photo, Reference)]
    captions = sorted((caption for caption in groups["captions"] if isinstance(caption, Caption)), key=repr)
    refused = next((caption for caption in captions if caption.reason), None)
    if photos and photos[0].reason:
        return photos[0], ()
    if not photos and refused:
        return Reference(source, reason=refused.reason, message=refused.message), ()
    if not photos:
        return Reference(source, reason="missing_file", message="no such file below --images"), ()
    if not captions:
        return Reference(source, reason="no_caption", message=""), ()
    texts = sorted({caption.text for caption in captions if caption.text})
    tags = sorted({tag for caption in captions for tag in caption.tags})
    return Reference(source, text="\n".join(texts) if texts else None), tuple(tags)


def label_one(record: Tagged, ids: Mapping[str, int]) -> Reference:
    """The record with the ids of those of its tags that are in the vocabulary, or rejected when none is."""
    reference, tags = record
    if reference.reason:
        return reference
    labels = tuple(sorted({ids[tag] for tag in tags if tag in ids}))
    if not labels:
        found = f"none of {', '.join(tags[:8])}{' ...' if len(tags) > 8 else ''}" if tags else "no tag"
        return Reference(reference.source, reason="no_label", message=found)
    return Reference(reference.source, labels, reference.text)


def check_match(labels: list[Label], matches: int) -> list[Label]:
    """The given labels, or InputError when no photo carries one of them."""
    if not matches:
        names = ", ".join(label.name for label in labels[:5])
        raise InputError(
            f"--vocabulary must fit the captions; no photo has one of its {len(labels)} labels (such as {names}): give "
            "another file, or leave it out to take the labels from the captions."
        )
    return labels


def choose_labels(
    options: Hashtags, frequent: Sequence[tuple[str, int]], top: Sequence[tuple[int, str]], total: int
) -> list[Label]:
    """Labels out of the tags that reach `min_count`: (tag, photos) pairs; by falling count, then by name.

    Raises:
        InputError: when there is none; says the most frequent tag, `top` = [(-photos, tag)].
    """
    if not frequent:
        if not top:
            way_out = "" if options.tags_from_words else " If the captions are plain sentences, add --tags-from-words."
            raise InputError(
                f"captions must hold tags such as #dog; found none on {total} photos with a caption.{way_out}"
            )
        count, tag = top[0]
        raise InputError(
            f"no tag reaches --min-count {options.min_count}: the most frequent is {tag!r} with {-count} of {total} photos; "
            "lower --min-count or give --vocabulary."
        )
    names = {tag for tag, _ in frequent}
    ranked = sorted(frequent, key=lambda pair: (-pair[1], pair[0]))
    plurals = {
        tag for tag in names if options.tags_from_words and tag.endswith("s") and len(tag) > 3 and tag[:-1] in names
    }
    kept = [tag for tag, _ in ranked if tag not in plurals][: options.max_labels]
    return [Label(i, tag, (tag, tag + "s") if tag + "s" in plurals else (tag,), 0) for i, tag in enumerate(kept)]


def given_labels(path: str) -> list[Label]:
    """The labels of a vocabulary file; names and synonyms are normalised as tags are.

    Raises:
        InputError: for a word that is no tag, or that stands for two labels.
    """
    labels, owner = [], dict[str, str]()
    for number, row in enumerate(label_rows(path)):
        words = [word for cell in row for word in cell.split()]
        tags = list(dict.fromkeys(tag for word in words for tag in parse_tag_list(word)))
        if not tags:
            raise InputError(f"a line of the vocabulary names a tag; {path} has {' '.join(row)!r}.")
        for tag in tags:
            if tag in owner:
                raise InputError(
                    f"a tag stands for one label; {path} has {tag!r} under {owner[tag]!r} and {tags[0]!r}."
                )
            owner[tag] = tags[0]
        labels.append(Label(number, tags[0], tuple(tags), 0))
    return labels


def parse_tags(text: str) -> list[str]:
    """The hashtags of a text in its order, each once: after '#', letters with their marks, numbers and underscores.

    `#Café` and `#cafe` + U+0301 are one tag, the full-width '#' counts, `C#`, `a#b`, `#123` and the keycap emoji do not.
    """
    text = _normal(text)
    found: dict[str, None] = {}
    for start, sign in enumerate(text):
        if sign != "#" or (start and _is_tag_character(text[start - 1])):
            continue
        end = start + 1
        while end < len(text) and _is_tag_character(text[end]):
            end += 1
        tag = text[start + 1 : end].strip(_JOINERS)
        # A mark right behind '#' belongs to '#': it is an emoji, no word.
        if tag and unicodedata.category(tag[0])[0] != "M" and any(unicodedata.category(c)[0] == "L" for c in tag):
            found[tag] = None
    return list(found)


def parse_tag_list(cell: object) -> list[str]:
    """The tags of a `hashtags` cell: a list, or text with spaces or commas between; '#' may be left out."""
    words = [str(word) for word in cell] if isinstance(cell, list | tuple) else re.split(r"[\s,;]+", str(cell or ""))
    return list(dict.fromkeys(tag for word in words for tag in parse_tags("#" + re.sub(r"[\s#＃]+", "", word))))


def parse_words(text: str) -> list[str]:
    """The words of a text that may say what a photo shows: normalised as tags, two letters or more, no stop words."""
    letters = "".join(c if unicodedata.category(c)[0] in "LM" else "'" if c in "'’" else " " for c in _normal(text))
    words = (word.strip("'").removesuffix("'s") for word in letters.split())
    return list(dict.fromkeys(w for w in words if len(w) > 1 and "'" not in w and w not in STOP_WORDS))


# Zero-width joiners shape letters in Persian and the scripts of India: they belong to a word, but do not end one.
_JOINERS = "\u200c\u200d"


def _normal(text: str) -> str:
    """NFKC and case folding, so that one word has one spelling; presentation selectors of emoji are no part of a word."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded.replace("\ufe0e", "").replace("\ufe0f", "")


def _is_tag_character(character: str) -> bool:
    return character == "_" or character in _JOINERS or unicodedata.category(character)[0] in "LMN"


def _words_of(row: Row, column: str) -> str:
    cell = row.get(column)
    words = cell if isinstance(cell, list | tuple) else [cell]
    return "\n".join(str(word).strip() for word in words if word not in (None, ""))
