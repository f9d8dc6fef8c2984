"""How every job runs its Beam pipeline: on the embedded runner unless told otherwise, quietly, with one-line errors."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from sharding.errors import InputError
from sharding.options import nearest_option

# By its full name: plain DirectRunner would first try to download another engine.
LOCAL = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def beam_options(arguments: list[str], job_options: type) -> PipelineOptions:
    """The words that are no option of the job, as options of Beam.

    Raises:
        InputError: for a word that Beam does not know either, and for runners that lose data.
    """
    notes = logging.getLogger("apache_beam.options.pipeline_options")
    level, notes.level = notes.level, logging.ERROR
    options = PipelineOptions(arguments)
    known, all_words = options.get_all_options(), options.get_all_options(retain_unknown_options=True)
    notes.level = level
    standard = options.view_as(StandardOptions)
    if standard.runner and "dask" in standard.runner.lower():
        raise InputError(
            "a runner must not lose records; DaskRunner does, without an error (it runs one branch of a pipeline and drops "
            "tagged outputs). Take --direct_running_mode=multi_processing, or Flink, Spark or Dataflow."
        )
    local = standard.runner in (None, "DirectRunner", LOCAL)
    for name in sorted(set(all_words) - set(known)):
        word = "--" + name.replace("_", "-")
        hint = nearest_option(word, job_options)
        # A job server may know options of its own, so on other runners only a near miss of our own is refused.
        if local or hint:
            raise InputError(f"{word} is an option neither of the job nor of Beam.{hint} See --help.")
    if local:
        standard.runner = LOCAL
    return options


def run_pipeline(construct: Callable[[beam.Pipeline], object], options: PipelineOptions) -> None:
    """Build the pipeline by `construct`, run it, and wait for its end.

    Raises:
        InputError: also where it was raised in a worker and arrives wrapped in Beam's own error.
        KeyboardInterrupt: likewise.
    """
    # The worker's harness logs a traceback of every error that it also hands on to us.
    for name in ("common", "worker.sdk_worker", "worker.data_plane", "portability.local_job_service"):
        logging.getLogger(f"apache_beam.runners.{name}").setLevel(logging.CRITICAL)
    try:
        pipeline = beam.Pipeline(options=options)
    except ValueError as error:  # a runner that does not exist, or options that do not fit together
        raise InputError(" ".join(str(error).split())) from error
    construct(pipeline)
    processes = options.view_as(DirectOptions).direct_running_mode == "multi_processing"
    try:
        with _hushed() if processes else contextlib.nullcontext():
            pipeline.run().wait_until_finish()
    except Exception as error:
        text = str(error)
        if text.startswith("KeyboardInterrupt"):
            raise KeyboardInterrupt from error
        wrapped = re.search(r"\bInputError: (.+?)(?: \[while running |$)", text, re.MULTILINE)
        if isinstance(error, InputError) or wrapped:
            message = wrapped.group(1) if wrapped else text.partition(" [while running ")[0]
            raise InputError(message) from error
        raise


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Child processes started in the block write to a file instead of our stderr; an error shows the end of it.

    Beam's workers tell every step of their own start and end, and there is no option against it.
    """
    ours, shared = sys.stderr, os.dup(2)
    with tempfile.TemporaryFile() as noise, os.fdopen(os.dup(2), "w", buffering=1) as quiet:
        os.dup2(noise.fileno(), 2)
        if ours is sys.__stderr__:
            sys.stderr = quiet
        try:
            yield
        except Exception as error:
            if "InputError" not in str(error) and "KeyboardInterrupt" not in str(error):
                noise.seek(max(0, noise.seek(0, os.SEEK_END) - 4000))
                quiet.write(noise.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr = ours
            os.dup2(shared, 2)
            os.close(shared)


@contextlib.contextmanager
def watched(look: Callable[[], None], every: float = 0.5) -> Iterator[None]:
    """Calls `look` every so many seconds from a thread of its own while the block runs, and once at its end."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    look()
