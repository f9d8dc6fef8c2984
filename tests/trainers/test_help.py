"""The help read from sources: small recipes written here, and every real one against the dataclass it returns."""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from sharding.errors import InputError
from trainers.help import describe_command, describe_recipe, find_recipe, list_recipes

REGIME = '''
"""A regime."""
from collections.abc import Callable
from dataclasses import dataclass

raise RuntimeError("help must not run this file")

Curve = Callable[[int], float]

@dataclass(frozen=True)
class Base:
    seed: int = 0
    """Of everything
    that is drawn."""

@dataclass(frozen=True)
class Regime(Base):
    model: Callable[[int], int]
    """The network."""
    schedule: Curve = float
    batch_size: int = 256
    lr: float = 0.1
    """Learning rate."""
'''
BASE = '''
"""First line.

More words."""
from myregime import Regime

def recipe() -> Regime:
    return Regime(model=partial(net, width=16), lr=0.1 * 8064 / 256)
'''
VARIANT = '''
"""A variant."""
from dataclasses import replace
import mybase as base

def recipe():
    return replace(base.recipe(), batch_size=8, lr=3.15)

def tiny():
    return replace(recipe(), batch_size=2)
'''


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("myregime", REGIME), ("mybase", BASE), ("myvariant", VARIANT)):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_fields_of_a_recipe(sources: Path) -> None:
    lines = describe_recipe(str(sources / "mybase.py")).splitlines()
    assert lines[:3] == ["First line.", "", "More words."]
    assert lines[4].startswith("Fields of Regime (")
    assert lines[5:] == [
        "  --seed int [default: 0]",
        "      Of everything that is drawn.",
        "  model [recipe: partial(net, width=16)] (a function: set it in a recipe file)",
        "      The network.",
        "  schedule [default: float] (a function: set it in a recipe file)",
        "  --batch-size int [default: 256]",
        "  --lr float [recipe: 0.1 * 8064 / 256]",
        "      Learning rate.",
    ]


@pytest.mark.parametrize(
    "variant",
    [
        VARIANT,
        VARIANT.replace("import mybase as base", "from mybase import recipe as start").replace(
            "base.recipe()", "start()"
        ),
        VARIANT.replace("return replace(base.recipe(),", "start = base.recipe()\n    return replace(start,"),
    ],
)
def test_a_variant_is_followed(sources: Path, variant: str) -> None:
    (sources / "myvariant.py").write_text(variant)
    text = describe_recipe(str(sources / "myvariant.py"))
    assert text.startswith("A variant.\n")
    assert "  --batch-size int [recipe: 8]\n" in text
    assert "  --lr float [recipe: 3.15]\n" in text
    assert "  model [recipe: partial(net, width=16)]" in text


def test_dotted_module(sources: Path) -> None:
    package = sources / "mypackage"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError")
    (package / "own.py").write_text(VARIANT)
    assert find_recipe("mypackage.own") == package / "own.py"
    assert "[recipe: 8]" in describe_recipe("mypackage.own")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", r"must define recipe\(\)"),
        ("def recipe():\n    return 1 + 1", "returns '1 \\+ 1'"),
        ("def recipe():\n    return recipe()", "returns 'recipe\\(\\)'"),
        ("def recipe(:", "must be Python"),
    ],
)
def test_refusals(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as refused:
        describe_recipe(str(path))
    assert "\n" not in str(refused.value)


def test_unknown_recipe_names_the_nearest() -> None:
    for name in ("hashtag_resnet81", "no.such.module", "absent.py", "__init__"):
        with pytest.raises(InputError, match=f"{name}.*does not|found '{name}'"):
            find_recipe(name)
    if list_recipes():
        known = list_recipes()[0][0]
        with pytest.raises(InputError, match=f"Did you mean {known}"):
            find_recipe(known + "x")


def test_list_recipes(sources: Path) -> None:
    (sources / "__init__.py").write_text('"""Not a recipe."""')
    assert list_recipes(sources) == [("mybase", "First line."), ("myregime", "A regime."), ("myvariant", "A variant.")]


def test_every_recipe_has_its_fields() -> None:
    """The fields found without running a recipe are those of the object that it returns."""
    for name, line in list_recipes():
        assert line, name
        regime = importlib.import_module(f"trainers.recipes.{name}").recipe()
        shown = [
            words[2:].lstrip("-").partition(" ")[0] for words in describe_recipe(name).splitlines() if "[" in words
        ]
        shown = [word.replace("-", "_") for word in shown]
        assert [field.name for field in dataclasses.fields(regime)] == [w for w in shown if hasattr(regime, w)], name


def test_command_options() -> None:
    text = describe_command("trainers.evaluate.classify")
    assert "  --predictions str [required]\n" in text
    assert "  --k int [default: 5]\n" in text


def test_needs_no_torch() -> None:
    code = "import sys, trainers.help as h; h.describe_command('trainers.evaluate.classify'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
