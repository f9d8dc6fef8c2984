"""What every photo job does around its pipeline: check the options and inputs, see whether all is done already, run, sum up.

Everything a user can get wrong is found here, before the first byte is written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from typing import TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.images import MOST_PIXELS
from pipelines.options import Photos
from pipelines.runner import run_pipeline, watched
from pipelines.shards import MARKERS, REPORT, SHARD_NAME, job_of
from sharding.errors import InputError
from sharding.files import TEMPORARY, exists, is_local, join, list_files, read_bytes, remove
from sharding.manifest import MANIFEST, VOCABULARY, read_manifest
from sharding.order import REJECTS
from sharding.progress import Progress

Job = TypeVar("Job", bound=Photos)
# Options that say where things are or how the work is done; all others change the bytes and are kept in the manifest.
_NOT_IN_BYTES = ("images", "captions", "list", "output", "threads", "max_reject_share")


def facts_of(options: Photos) -> dict[str, object]:
    """The options that change bytes, as the manifest keeps them; a vocabulary file by the hash of its content.

    Raises:
        InputError: for a value out of its range, or a vocabulary that does not exist.
    """
    ranges = {"short_side": (8, 100_000), "quality": (1, 95), "max_pixels": (1, MOST_PIXELS), "max_bytes": (1, 1 << 40)}
    ranges |= dict.fromkeys(("shards", "samples_per_shard", "min_count", "max_labels", "threads"), (1, 1 << 30))
    ranges |= {"max_reject_share": (0, 1)}
    fields = dataclasses.asdict(options)
    for name, (least, most) in ranges.items():
        value = fields.get(name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name.replace('_', '-')} must be {least} to {most}; found {value}.")
    facts = {name: value for name, value in fields.items() if name not in _NOT_IN_BYTES}
    if facts.get("vocabulary"):
        path = str(facts["vocabulary"])
        if not exists(path):
            raise InputError(f"--vocabulary must be a file; {path} does not exist.")
        if is_local(path) and os.path.isdir(path):
            raise InputError(f"--vocabulary must be a file; {path} is a folder. Give {join(path, VOCABULARY)}.")
        facts["vocabulary"] = "sha256:" + hashlib.sha256(read_bytes(path)).hexdigest()
    return facts


def check_folder(output: str) -> None:
    """Raise InputError when the output is a file."""
    if is_local(output) and os.path.isfile(output):
        raise InputError(f"--output must be a folder; {output} is a file. Give another one.")


def is_complete(options: Photos, facts: dict[str, object]) -> bool:
    """True, and says so, when the output folder holds the finished result of these options already.

    Raises:
        InputError: when it holds the result of other options, or files that are not a dataset.
    """
    output = options.output
    check_folder(output)
    if exists(join(output, MANIFEST)):
        manifest = read_manifest(output)
        before = {"job": manifest.job, **manifest.options}
        for name, value in {"job": job_of(options), **facts}.items():
            if before.get(name) != value:
                raise InputError(
                    f"{output} already holds a dataset built with {name.replace('_', '-')} {before.get(name)!r}, now it is "
                    f"{value!r}; give another --output, or remove the folder."
                )
        remove(join(output, MARKERS))
        print(
            f"already complete: {output} holds {manifest.kept} samples in {len(manifest.shards)} shards; nothing to do. "
            "(To build it again from changed photos, remove the folder.)"
        )
        return True
    for name in list_files(output, hidden=True) if exists(output) else []:
        ours = name.startswith(MARKERS + "/") or TEMPORARY in name or SHARD_NAME.fullmatch(name)
        if not ours and name not in (REJECTS, VOCABULARY, REPORT):
            raise InputError(
                f"--output must be a new or empty folder, or a dataset; {output} holds {name}. Give another one."
            )
    return False


def photos_below(options: Photos) -> list[str]:
    """Source ids of all files below --images.

    Raises:
        InputError: when the folder is absent or holds no file, or when the output lies inside of it.
    """
    images, output = options.images, options.output
    if not exists(images):
        raise InputError(f"--images must be a folder; {images} does not exist.")
    if is_local(images) and not os.path.isdir(images):
        raise InputError(f"--images must be a folder; {images} is a file.")
    if (output.rstrip("/") + "/").startswith(images.rstrip("/") + "/"):
        raise InputError(
            f"--output must lie outside of --images, else shards would be taken for photos; found {output}."
        )
    sources = list_files(images)
    if not sources:
        raise InputError(f"--images must hold photos; {images} holds no files.")
    return sources


def absolute(options: Job) -> Job:
    """The options with local paths made absolute, since workers may run elsewhere."""
    paths = {
        name: os.path.abspath(value)
        for name, value in dataclasses.asdict(options).items()
        if name in ("images", "output") and is_local(value)
    }
    return dataclasses.replace(options, **paths)


def build_dataset(
    construct: Callable[[beam.Pipeline], object], options: Photos, beam_options: PipelineOptions, total: int | None
) -> None:
    """Run the job's pipeline with a progress line over its about `total` records, and sum up what came out."""
    begin = time.monotonic()
    markers = join(options.output, MARKERS)
    every = 0.5 if is_local(markers) else 10  # seconds; a look at remote storage costs requests
    _forget_progress(markers)
    with Progress(f"build {job_of(options)}", total, unit="photos") as progress:
        with watched(lambda: progress.update(max(progress.done, _done(markers))), every):
            run_pipeline(construct, beam_options)
        manifest = read_manifest(options.output)
        progress.update(manifest.read)
    megabytes = sum(shard.bytes for shard in manifest.shards) / 1e6
    rejects = ", ".join(f"{reason} {count}" for reason, count in manifest.rejected.items()) or "none"
    print(
        f"read {manifest.read} = kept {manifest.kept} + rejected {manifest.read - manifest.kept} ({rejects})\n"
        f"{len(manifest.shards)} shards, {megabytes:.1f} MB, {time.monotonic() - begin:.1f} s\n"
        f"look: {join(options.output, REPORT)}"
    )


def _done(markers: str) -> int:
    try:
        return sum(int(read_bytes(path)) for path in _counts(markers))
    except OSError:
        return 0  # the commit removes the folder while we look


def _forget_progress(markers: str) -> None:
    for path in _counts(markers):
        remove(path)


def _counts(markers: str) -> list[str]:
    return [join(markers, name) for name in list_files(markers) if name.endswith(".at")] if exists(markers) else []
