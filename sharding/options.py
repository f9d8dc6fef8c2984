"""Commands from typed dataclasses (tyro), with errors of one line: the rule, what was found, the way out."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from sharding.errors import InputError

T = TypeVar("T")


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint `Did you mean X?` for a misspelt word, or nothing."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def parse(
    cls: type[T], arguments: Sequence[str], prog: str, default: T | None = None, pass_unknown: bool = False
) -> tuple[T, list[str]]:
    """Read the command line into the dataclass `cls`; returns it and the words that it does not know.

    `--help` prints and exits. Unknown words are an error unless `pass_unknown`.

    Raises:
        InputError: for a missing, misspelt or malformed option.
    """
    import tyro

    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            if default is None:
                options, unknown = tyro.cli(cls, args=list(arguments), prog=prog, return_unknown_args=True)
            else:
                options, unknown = tyro.cli(
                    cls, args=list(arguments), prog=prog, default=default, return_unknown_args=True
                )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(messages.getvalue(), prog)) from None
    sys.stderr.write(messages.getvalue())
    if unknown and not pass_unknown:
        raise InputError(f"{unknown[0]!r} is no option of {prog}.{nearest_option(unknown[0], cls)} See {prog} --help.")
    return options, list(unknown)


def nearest_option(word: str, cls: type) -> str:
    """A hint for a misspelt option of a dataclass."""
    names = ["--" + field.name.replace("_", "-") for field in dataclasses.fields(cls)]
    return nearest(word.partition("=")[0], names)


def _one_line(box: str, prog: str) -> str:
    """tyro's framed message without its frame: what is missing by name, what is malformed in tyro's own words."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip(" │┃╭╮╰╯─━") for line in text.splitlines()]
    if any(line.startswith("Missing from") for line in lines):
        missing = [
            line.split()[0] for line in lines if re.match(r"--\w|[A-Z]{2,}( |$)", line)
        ]  # options, positional words
        return f"{' and '.join(missing)} must be given. See {prog} --help."
    fault = next((line for line in lines if line.startswith("Error parsing")), " ".join(filter(None, lines)))
    return f"{fault}. See {prog} --help."
