"""`omnishard train RECIPE [--field value ...] [--check]`, also `python -m trainers` and `torchrun -m trainers`.

RECIPE is a name in trainers/recipes, a dotted module, or the path of a .py file. Help and misspelt names are answered
before torch is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

from sharding.errors import InputError
from sharding.options import parse
from trainers.help import describe_recipe, find_recipe, list_recipes

PROG = "omnishard train"


def main(arguments: list[str]) -> int:
    """Train, or answer; returns the exit code: 0, 2 for what was asked wrongly, 130 after Ctrl-C."""
    speaks = os.environ.get("RANK", "0") == "0"  # errors are alike on all ranks; one of them says so
    try:
        return _answer(arguments)
    except InputError as error:
        if speaks:
            print(f"{PROG}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if speaks:
            print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _answer(arguments: list[str]) -> int:
    helps = [word for word in arguments if word in ("-h", "--help")]
    words = [word for word in arguments if word not in ("-h", "--help", "--check")]
    if not words or words[0].startswith("-"):
        if not helps:
            raise InputError(
                f"the first word is a recipe; found {words[0] if words else 'nothing'!r}: see {PROG} --help."
            )
        print(_overview())
        return 0
    name, *options = words
    find_recipe(name)
    if helps:
        print(describe_recipe(name))
        return 0
    _start_logging()
    recipe = load_recipe(name).recipe()
    functions = {f.name for f in fields(recipe) if callable(getattr(recipe, f.name))}
    for word in options:
        field = word.partition("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and field in functions:
            raise InputError(
                f"--{field} is a function: write a recipe file that sets it with replace(), and train that file."
            )
    recipe, _ = parse(type(recipe), options, f"{PROG} {name}", default=recipe)
    short = Path(name).stem if name.endswith(".py") else name.rpartition(".")[2]
    if "--check" in arguments:
        recipe.check(short)
        return 0
    return 130 if recipe.run(short) == "interrupted" else 0


def load_recipe(name: str) -> ModuleType:
    """Import a recipe: a name in trainers/recipes, a dotted module, or the path of a .py file.

    Raises:
        InputError: when there is none, or its file has no recipe().
    """
    path = find_recipe(name)
    if name.endswith(".py"):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever the user's file raises
            raise InputError(
                f"{path} cannot be imported: {type(error).__name__}: {error}. Mend the recipe file."
            ) from error
    else:
        module = importlib.import_module(name if "." in name else f"trainers.recipes.{name}")
    if not hasattr(module, "recipe"):
        raise InputError(f"a recipe file defines recipe(); {path} does not: see trainers/recipes for examples.")
    return module


def _overview() -> str:
    recipes = "\n".join(f"  {name:28} {line}" for name, line in list_recipes())
    return (
        f"usage: {PROG} RECIPE [--field value ...] [--check]\n\nTrain a recipe on dataset folders. RECIPE is one of these, a "
        f"dotted module, or a .py file:\n\n{recipes}\n\n"
        f"  {PROG} RECIPE --help     the fields of a recipe with their values\n"
        f"  {PROG} RECIPE --check    try one batch, print memory and time; writes nothing\n"
        "  torchrun --nproc-per-node N -m trainers RECIPE ...     many ranks"
    )


def _start_logging() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    for package in ("trainers", "sharding"):
        logging.getLogger(package).setLevel(level)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
