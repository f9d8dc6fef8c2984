"""`omnishard evaluate WHAT`: public result files in, a table of metrics out."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from sharding.errors import InputError
from sharding.options import nearest
from trainers.help import describe_command

WHAT = {"classify": "top-1, top-5, precision@k and mAP of class or hashtag predictions (csv)"}


def main(arguments: Sequence[str]) -> int:
    """Run `WHAT --option value ...`; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: omnishard evaluate WHAT --option value ...\n\nWHAT (each has --help):")
        print("\n".join(f"  {name:<10}{purpose}" for name, purpose in WHAT.items()))
        return 0
    what, *rest = arguments
    if what not in WHAT:
        raise InputError(f"what can be evaluated is {', '.join(WHAT)}; found {what!r}.{nearest(what, WHAT)}")
    module = f"trainers.evaluate.{what}"
    if "-h" in rest or "--help" in rest:
        print(describe_command(module))
        return 0
    return int(importlib.import_module(module).main(rest))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
