"""report.html of a dataset folder: what was read, what became of it, and what the photos and labels look like.

The page is a pure function of the data: counts by shard come from the markers, photos from the first shards.
"""

from __future__ import annotations

import collections
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup
from PIL import Image

from pipelines.images import REASONS, Prepared
from sharding.files import join
from sharding.manifest import Label, Manifest
from sharding.report import bar_chart, fold, line_chart, links, page, photo_grid, section, table, text
from sharding.samples import decode_labels
from sharding.tar import read_shard

_EXAMPLES = 5
_PHOTOS, _THUMBNAIL = 24, 200
_SIDE_BIN, _SIZE_BIN = 64, 10_000  # pixels, bytes


@dataclass
class Statistics:
    """Counts over the kept samples of a shard, or of all; names are text, so that they live in JSON."""

    labels: dict[str, int] = field(default_factory=collections.Counter)  # label id
    labels_per_photo: dict[str, int] = field(default_factory=collections.Counter)
    formats: dict[str, int] = field(default_factory=collections.Counter)
    long_sides: dict[str, int] = field(default_factory=collections.Counter)  # pixels, lower end of the bin
    sizes: dict[str, int] = field(default_factory=collections.Counter)  # bytes, lower end of the bin
    converted: dict[str, int] = field(default_factory=collections.Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)  # kind of conversion -> the first sources

    def add(self, source: str, labels: Sequence[int], photo: Prepared) -> None:
        """Count one kept sample; call in the order of the keys."""
        for label in labels:
            self.labels[str(label)] += 1
        self.labels_per_photo[str(len(labels))] += 1
        self.formats[photo.format] += 1
        self.long_sides[str(max(photo.width, photo.height) // _SIDE_BIN * _SIDE_BIN)] += 1
        self.sizes[str(len(photo.jpeg) // _SIZE_BIN * _SIZE_BIN)] += 1
        for done in photo.converted:
            kind = re.sub(r" (from|of) .*", "", done)
            self.converted[kind] += 1
            examples = self.examples.setdefault(kind, [])
            if len(examples) < _EXAMPLES:
                examples.append(source)

    def merge(self, other: Mapping[str, Mapping[str, int]]) -> None:
        """Add the counts of a later shard, as they stand in its marker."""
        for name, counts in other.items():
            if name != "examples":
                for key, count in counts.items():
                    getattr(self, name)[key] += count
        for kind, sources in other["examples"].items():
            mine = self.examples.setdefault(kind, [])
            mine += list(sources)[: _EXAMPLES - len(mine)]  # type: ignore[call-overload]


def dataset_page(
    output: str,
    manifest: Manifest,
    labels: Sequence[Label],
    statistics: Statistics,
    first_rejects: Sequence[Mapping[str, object]],
) -> str:
    """The whole page; `first_rejects` are rows of rejects.jsonl to list, in its order."""
    megabytes = sum(shard.bytes for shard in manifest.shards) / 1e6
    return page(
        f"Dataset of {manifest.kept:,} photos",
        _counts(manifest),
        section("Photos", text("The first photos of the first shards: a random draw, since shards are ordered by a hash."),
                photo_grid(_photos(output, manifest, labels))),
        _labels(labels, statistics),
        _changes(statistics),
        _sizes(statistics),
        _rejects(manifest, first_rejects),
        _build(manifest),
        subtitle=f"omnishard build {manifest.job}: {len(labels):,} labels, {len(manifest.shards):,} shards, {megabytes:,.1f} MB",
    )  # fmt: skip


def _counts(manifest: Manifest) -> Markup:
    rejected = manifest.read - manifest.kept
    rows: list[list[object]] = [
        ["read", manifest.read, "Records of the input."],
        ["kept", manifest.kept, "Samples in the shards."],
    ]
    rows += [
        ["rejected", rejected, "Not in the shards, for these reasons:" if rejected else "Nothing was turned away."]
    ]
    rows += [
        [
            f"\u00a0\u00a0\u00a0{reason}",
            count,
            f"{REASONS[reason].sentence} ({'damage' if REASONS[reason].damage else 'selection'})",
        ]
        for reason, count in manifest.rejected.items()
    ]
    words = f"{manifest.read:,} read = {manifest.kept:,} kept + {rejected:,} rejected."
    return section("What became of the records", text(words), table(["", "records", ""], rows))


def _labels(labels: Sequence[Label], statistics: Statistics) -> Markup:
    ranked = sorted((label for label in labels if label.count), key=lambda label: (-label.count, label.name))
    if not ranked:
        return section("Labels", text("There are no labels."))
    blocks = []
    if len(ranked) > 2:
        frequencies = ([float(rank) for rank in range(1, len(ranked) + 1)], [float(label.count) for label in ranked])
        blocks.append(line_chart({"labels": frequencies}, x="rank of the label", y="photos", log_x=True, log_y=True))
    per_photo = {key: float(statistics.labels_per_photo[key]) for key in sorted(statistics.labels_per_photo, key=int)}
    if len(per_photo) > 1:
        blocks.append(bar_chart(per_photo, x="labels per photo", y="photos"))
    head, tail = ranked[:20], ranked[20:][-20:]
    blocks.append(text("The most frequent labels:" if tail else "All labels with photos:"))
    blocks.append(_label_table(head))
    if tail:
        blocks += [text("The rarest:"), _label_table(tail)]
    unused = len(labels) - len(ranked)
    if unused:
        names = ", ".join(label.name for label in labels if not label.count)
        blocks.append(text(f"{unused:,} labels have no photo: {names[:400]}{' ...' if len(names) > 400 else ''}"))
    return section("Labels", *blocks, links({"vocabulary.tsv": "vocabulary.tsv"}))


def _label_table(labels: Sequence[Label]) -> Markup:
    with_members = any(len(label.members) > 1 for label in labels)
    header = ["label", "photos"] + ["members"] * with_members
    rows = [[label.name, label.count] + [" ".join(label.members[:12])] * with_members for label in labels]
    return table(header, rows)


def _changes(statistics: Statistics) -> Markup:
    rows = [
        [kind, count, ", ".join(statistics.examples[kind])]
        for kind, count in sorted(statistics.converted.items(), key=lambda item: (-item[1], item[0]))
    ]
    formats = ", ".join(
        f"{kind} {count:,}" for kind, count in sorted(statistics.formats.items(), key=lambda i: (-i[1], i[0]))
    )
    blocks = [text(f"Formats read: {formats}. Stored: upright RGB JPEG without metadata.")]
    if rows:
        blocks.append(table(["what was done", "photos", "for example"], rows))
    return section("What was done to the photos", *blocks)


def _sizes(statistics: Statistics) -> Markup:
    sides = _bins(statistics.long_sides, _SIDE_BIN, 1)
    sizes = _bins(statistics.sizes, _SIZE_BIN, 1000)
    return section(
        "Stored sizes",
        bar_chart(sides, x="long side, pixels", y="photos"),
        bar_chart(sizes, x="file size, kB", y="photos"),
    )


def _bins(counts: Mapping[str, int], width: int, unit: int, most: int = 16) -> dict[str, float]:
    """Neighbouring bins up to the last, the far tail in one: bin name -> count."""
    lows = sorted(map(int, counts))
    first, last = lows[0], min(lows[-1], lows[0] + (most - 1) * width)
    bins = {low: float(counts.get(str(low), 0)) for low in range(first, last + width, width)}
    bins[last] += sum(counts[str(low)] for low in lows if low > last)
    return {
        f"{low // unit}-{(low + width) // unit}" if low < last or lows[-1] <= last else f"from {low // unit}": count
        for low, count in bins.items()
    }


def _rejects(manifest: Manifest, first_rejects: Sequence[Mapping[str, object]]) -> Markup:
    total = manifest.read - manifest.kept
    if not total:
        return section("Rejected records", text("There are none."))
    rows = [[row["source"], row["reason"], row["message"]] for row in first_rejects]
    listing = table(["source", "reason", "found"], rows)
    words = f"{total:,} records" if total == len(rows) else f"The first {len(rows):,} of {total:,} records"
    return section(
        "Rejected records",
        listing if len(rows) <= 20 else fold(words, listing),
        links({"rejects.jsonl": "rejects.jsonl"}),
    )


def _build(manifest: Manifest) -> Markup:
    options = [
        [name.replace("_", "-"), "" if value is None else str(value)] for name, value in manifest.options.items()
    ]
    shards = table(
        ["shard", "samples", "bytes", "sha256"],
        [[shard.name, shard.samples, shard.bytes, shard.sha256[:16]] for shard in manifest.shards],
    )
    return section(
        "How it was built",
        table(["option", "value"], [["version", manifest.version], *options]),
        shards if len(manifest.shards) <= 12 else fold(f"{len(manifest.shards):,} shards", shards),
        links({"manifest.json": "manifest.json"}),
    )


def _photos(output: str, manifest: Manifest, labels: Sequence[Label]) -> Iterator[tuple[bytes, str]]:
    samples = itertools.chain.from_iterable(read_shard(join(output, shard.name)) for shard in manifest.shards)
    for sample in itertools.islice(samples, _PHOTOS):
        image = Image.open(io.BytesIO(sample.members["jpg"]))
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        small = io.BytesIO()
        image.save(small, "JPEG", quality=80)
        names = [labels[label].name for label in decode_labels(sample.members)]
        yield small.getvalue(), ", ".join(names)
