"""The folder of a run: which recipe made it, its metrics, and whether it may go on or is finished.

OUTPUT/run.json        the recipe's fields, against which a resumed run is compared
OUTPUT/metrics.jsonl   one object per logged step and per evaluation; the record of the run
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import fields

from sharding.errors import InputError
from sharding.files import exists, join, list_files, read_bytes, write_atomic
from trainers.checkpoint import CARD

RUN, METRICS = "run.json", "metrics.jsonl"
TIMING = ("seconds", "images_per_second", "waiting")  # fields of metrics.jsonl that no two runs share

# Fields that may differ when a run goes on: they do not change what is computed. What the shards hold is known by their
# fingerprint, wherever they lie.
_FREE = {"output", "shards", "threads", "loader", "checkpoint_every", "allow_data_change"}


def check_data(old: str, new: str, output: str, allowed: bool) -> None:
    """Raise InputError when the data of a run has changed, unless that is allowed."""
    if old != new and not allowed:
        raise InputError(
            f"{output} was trained on other data (fingerprint {old}, now {new}): choose another --output, or go on "
            "with --allow-data-change."
        )


def is_finished(output: str, fingerprint: str, allow_data_change: bool) -> bool:
    """Whether the run in `output` has its model; InputError when it was made from other data."""
    if not exists(join(output, CARD)):
        return False
    card = json.loads(read_bytes(join(output, CARD)))
    check_data(card["fingerprint"], fingerprint, output, allow_data_change)
    return True


def open_folder(output: str, name: str, recipe: object) -> None:
    """Make the folder of a run, or see that it is this run's.

    Raises:
        InputError: when it holds something else, or a run with other options.
    """
    now, path = described(recipe), join(output, RUN)
    if not exists(path):
        if exists(output) and (found := list_files(output)):
            raise InputError(f"--output must be a new folder or one of this run; {output} holds {found[0]}.")
        write_atomic(path, (json.dumps({"format": 1, "recipe": name, "fields": now}, indent=1) + "\n").encode())
        return
    before = json.loads(read_bytes(path))["fields"]
    differing = [key for key in sorted({*before, *now} - _FREE) if before.get(key) != now.get(key)]
    if differing:
        what = ", ".join(f"{key} was {before.get(key)}, now {now.get(key)}" for key in differing)
        raise InputError(f"{output} holds a run with other options ({what}): choose another --output, or remove it.")


def described(recipe: object) -> dict[str, str]:
    """The fields of a recipe as text that is the same in every process."""
    return {f.name: _text(getattr(recipe, f.name)) for f in fields(recipe)}  # type: ignore[arg-type]


def _text(value: object) -> str:
    if isinstance(value, functools.partial):
        words = [_text(v) for v in value.args] + [f"{key}={_text(v)}" for key, v in value.keywords.items()]
        return f"{_text(value.func)}({', '.join(words)})"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value) if isinstance(value, str) else repr(value)


class Metrics:
    """Appends to metrics.jsonl; on resume the lines that the checkpoint does not know of are dropped."""

    def __init__(self, output: str, step: int, rank: int) -> None:
        self.path, self.rank = join(output, METRICS), rank
        if rank == 0:
            lines = read_metrics(output)
            kept = [x for x in lines if x["step"] < step or (x["step"] == step and "order" in x)]
            write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def write(self, line: Mapping[str, object]) -> None:
        if self.rank == 0:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def read_metrics(output: str) -> list[dict[str, float]]:
    """The lines of metrics.jsonl; a last line that a killed process left half-written is not one."""
    path = join(output, METRICS)
    if not exists(path):
        return []
    text = read_bytes(path).decode()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
