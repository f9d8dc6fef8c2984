"""`omnishard claims NAME`: show a paper's central claim on your data. Nothing heavy is imported before a claim is named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from sharding.errors import InputError
from sharding.options import nearest, parse
from trainers.claims import options as claim_options

CLAIMS = {"hashtag_pretraining": claim_options.HashtagPretraining}


def main(arguments: Sequence[str]) -> int:
    """Run `NAME --option value ...`; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            "usage: omnishard claims NAME --option value ...\n\nClaims (omnishard claims NAME --help tells all options):"
        )
        for name, cls in CLAIMS.items():
            print(f"  {name}\n      {(cls.__doc__ or '').splitlines()[0]}")
        return 0
    name, *rest = arguments
    if name not in CLAIMS:
        raise InputError(f"a claim is one of {', '.join(CLAIMS)}; found {name!r}.{nearest(name, CLAIMS)}")
    options, _ = parse(CLAIMS[name], rest, f"omnishard claims {name}")
    return int(importlib.import_module(f"trainers.claims.{name}").run(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
