"""`omnishard build JOB`: reads the job's options and only then imports Beam and the job."""

from __future__ import annotations

import importlib
import logging
import os
import sys

from pipelines import options as job_options
from sharding.errors import InputError
from sharding.options import nearest, parse

JOBS = ("toy", "hashtags", "classes")


def main(arguments: list[str]) -> int:
    """Run `JOB --option value ...`; returns the exit code: 0 done, 2 for what the user can mend, 130 when interrupted."""
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(_overview())
            return 0
        job, *rest = arguments
        if job not in JOBS:
            raise InputError(f"a job is one of {', '.join(JOBS)}; found {job!r}.{nearest(job, JOBS)}")
        options, beam_arguments = parse(_options_of(job), rest, prog=f"omnishard build {job}", pass_unknown=True)
        _quiet_beam()
        importlib.import_module(f"pipelines.{job}").run(options, beam_arguments)
        return 0
    except InputError as error:
        print(f"omnishard build: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # Beam's worker threads do not listen to Ctrl-C, and an ordinary exit would wait for them


def _options_of(job: str) -> type[object]:
    """The dataclass of `pipelines.options` named like the job; the job itself is `run` of the module named like it."""
    found: type[object] = getattr(job_options, job.capitalize())
    return found


def _overview() -> str:
    lines = [
        "usage: omnishard build JOB --option value ...",
        "",
        "Jobs (omnishard build JOB --help tells all options of one):",
    ]
    lines += [f"  {job:<10}{(_options_of(job).__doc__ or '').splitlines()[0]}" for job in JOBS]
    return "\n".join(
        [*lines, "", "Example:", "  omnishard build hashtags --images photos --captions captions.tsv --output shards"]
    )


def _quiet_beam() -> None:
    """Warnings and errors only, without the import-time notes about cloud clients that nobody asked for."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger().handlers[0].addFilter(lambda record: "apitools" not in record.getMessage())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
