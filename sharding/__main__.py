"""`omnishard shards WORD`: look at datasets, verify them, adopt foreign ones, compare and merge them."""

from __future__ import annotations

import itertools
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from sharding.errors import InputError
from sharding.files import write_atomic
from sharding.options import nearest, parse

Folder = Positional[Annotated[str, arg(metavar="DIR")]]


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Hold every claim of a dataset against its bytes: checksums, index, order and range of keys, counts, labels, images.

    omnishard shards verify shards/tagged

    One line for each finding (shard, key, rule, what was found), tab-separated. Exit code 0 when there is none, else 1.
    Interrupted, the same command goes on where it stopped.
    """

    folder: Folder
    """The dataset folder."""
    decode: str = "all"
    """Images to decode: all, none, or a number of samples spread evenly over the set."""
    threads: int | None = None
    """Shards looked through at once. Without it: one per core."""
    json: str | None = None
    """Write the result to this file as well."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """What is in a dataset, from its manifest alone, at once.

    omnishard shards info shards/tagged --plan
    """

    folder: Folder
    """The dataset folder."""
    plan: bool = False
    """How well the order of a run is mixed, and which numbers of ranks can share it."""
    batch_size: int = 256
    """Global batch size for --plan."""


@dataclass(frozen=True, kw_only=True)
class Browse:
    """A local page to look at samples, labels and rejects; a set of millions opens at once. Ctrl-C ends it.

    omnishard shards browse shards/tagged
    """

    folder: Folder
    """The dataset folder."""
    port: int = 0
    """Port on 127.0.0.1; 0 takes a free one."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Make a dataset of foreign webdataset tars (img2dataset, video2dataset, GNU tar, ...) where they lie, without touching them.

    omnishard shards index laion

    Writes an index beside each tar, manifest.json, and rejects.jsonl with the records that cannot be vouched for.
    """

    folder: Folder
    """Folder with .tar files, at any depth."""
    decode: str = "all"
    """all: decode every image, so that none stops a training run. none: read the headers only, faster."""
    threads: int | None = None
    """Tars read at once. Without it: one per core."""


@dataclass(frozen=True, kw_only=True)
class Diff:
    """Compare two datasets by key, however they are cut into shards. Exit code 0 when they are equal, else 1.

    omnishard shards diff shards/before shards/after
    """

    a: Folder
    """A dataset folder."""
    b: Folder
    """Another one."""
    most: int = 50
    """Differences to print (and to list in --json); all are counted."""
    json: str | None = None
    """Write the result to this file as well."""


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Make one dataset of several, with the bytes of one build from all their inputs; no image is decoded.

    omnishard shards merge shards/march shards/april --output shards/spring

    The sets must come from one job and share their labels (build the second with --vocabulary FIRST/vocabulary.tsv). Of a
    source in both, the first folder's sample is kept. The same command again changes nothing, or goes on.
    """

    folders: Positional[Annotated[tuple[str, ...], arg(metavar="DIR DIR ...")]]
    """Two dataset folders or more."""
    output: str
    """Dataset folder to write."""
    shards: int | None = None
    """Number of shards. Without it: as the first folder was built."""
    samples_per_shard: int | None = None
    """Records per shard, about, when --shards is not given. Without it: as the first folder was built."""


def main(arguments: Sequence[str]) -> int:
    """Run `WORD ...`; returns the exit code: 0 fine, 1 something was found, 2 wrong input, 130 interrupted."""
    try:
        word, *rest = list(arguments) or ["--help"]
        if word in ("-h", "--help"):
            print(_overview())
            return 0
        if word not in _WORDS:
            raise InputError(f"a word is one of {', '.join(_WORDS)}; found {word!r}.{nearest(word, _WORDS)}")
        options, run = _WORDS[word]
        return run(parse(options, rest, prog=f"omnishard shards {word}")[0])
    except InputError as error:
        print(f"omnishard shards: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _verify(options: Verify) -> int:
    from sharding.verify import verify

    every = {"all": None, "none": 0}
    if options.decode not in every and not (options.decode.isascii() and options.decode.isdecimal()):
        raise InputError(f"--decode must be all, none or a number of samples; found {options.decode!r}.")
    decode = every[options.decode] if options.decode in every else int(options.decode)
    verdict = verify(options.folder, decode, _threads(options.threads), tell=lambda finding: print(finding, flush=True))
    count = len(verdict.findings)
    print(
        f"{options.folder}: {verdict.samples} samples in {verdict.shards} shards, {verdict.decoded} decoded: "
        f"{f'{count} findings' if count != 1 else '1 finding'}" + ("" if count else ", all is as the manifest says")
    )
    if options.json:
        write_atomic(options.json, _json({"folder": options.folder, "sound": not count, **asdict(verdict)}))
    return 1 if count else 0


def _info(options: Info) -> int:
    from sharding.info import describe, describe_plan

    if options.batch_size < 1:
        raise InputError(f"--batch-size must be at least 1; found {options.batch_size}.")
    print(describe(options.folder))
    if options.plan:
        print(describe_plan(options.folder, options.batch_size))
    return 0


def _browse(options: Browse) -> int:
    from sharding.browse import serve

    with serve(options.folder, options.port) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/   (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _index(options: Index) -> int:
    from sharding.adopt import index_folder
    from sharding.scan import REASONS

    if options.decode not in ("all", "none"):
        raise InputError(f"--decode must be all or none; found {options.decode!r}.")
    manifest = index_folder(options.folder, options.decode == "all", _threads(options.threads))
    print(f"{options.folder}: read {manifest.read} = kept {manifest.kept} + rejected {manifest.read - manifest.kept}")
    for reason, count in manifest.rejected.items():
        print(f"  {reason} {count}: {REASONS[reason]}")
    tars = int(str(manifest.options["tars"]))
    if tars > len(manifest.shards):
        print(f"  {tars - len(manifest.shards)} of {tars} tars hold no good sample and are left out")
    print(f"{len(manifest.shards)} shards can be read now: --shards {options.folder}")
    return 0


def _diff(options: Diff) -> int:
    from sharding.diff import Difference, diff

    counts = dict.fromkeys(("equal", "only_a", "only_b", "members", "label"), 0)
    words = {"only_a": "only in A", "only_b": "only in B", "members": "members differ", "label": "label"}
    shown: list[Difference] = []
    for difference in diff(options.a, options.b):
        counts[difference.kind if difference else "equal"] += 1
        if difference and len(shown) < options.most:
            shown.append(difference)
            print(f"{difference.key}\t{words[difference.kind]}\t{difference.found}")
    total = sum(counts.values()) - counts["equal"]
    if total > len(shown):
        print(f"... and {total - len(shown)} more (--most)")
    print(
        f"{counts['equal']} samples equal, {counts['members']} differ, {counts['only_a']} only in A, {counts['only_b']} only "
        f"in B, {counts['label']} labels differ"
    )
    if options.json:
        result = {"a": options.a, "b": options.b, **counts, "differences": [asdict(d) for d in shown]}
        write_atomic(options.json, _json(result))
    return 1 if total else 0


def _merge(options: Merge) -> int:
    from sharding.manifest import read_manifest
    from sharding.merge import merge

    for name in ("shards", "samples_per_shard"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1; found {value}.")
    wrote = merge(options.folders, options.output, options.shards, options.samples_per_shard)
    manifest = read_manifest(options.output)
    rejects = ", ".join(itertools.starmap("{} {}".format, manifest.rejected.items())) or "none"
    print(
        f"{'' if wrote else 'already complete: '}{options.output}: read {manifest.read} = kept {manifest.kept} + rejected "
        f"{manifest.read - manifest.kept} ({rejects}), {len(manifest.shards)} shards"
    )
    return 0


_WORDS: dict[str, tuple[type, Callable[..., int]]] = {
    "verify": (Verify, _verify),
    "info": (Info, _info),
    "browse": (Browse, _browse),
    "index": (Index, _index),
    "diff": (Diff, _diff),
    "merge": (Merge, _merge),
}


def _threads(threads: int | None) -> int | None:
    if threads is not None and threads < 1:
        raise InputError(f"--threads must be at least 1; found {threads}.")
    return threads


def _json(result: object) -> bytes:
    return (json.dumps(result, indent=1) + "\n").encode()


def _overview() -> str:
    lines = ["usage: omnishard shards WORD ...", "", "Words (omnishard shards WORD --help tells all options of one):"]
    lines += [f"  {word:<8}{(options.__doc__ or '').splitlines()[0]}" for word, (options, _) in _WORDS.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(sys.argv[1:]))
