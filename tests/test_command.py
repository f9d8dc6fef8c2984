"""The command as people type it: help at once, one line for a mistake, exit codes that scripts can trust."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import omnishard
from sharding import doctor
from sharding.errors import InputError
from sharding.options import parse


@dataclass(frozen=True)
class Options:
    """What the command does."""

    output: str
    """Where to."""
    size: int = 4
    """How big."""


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["demmo"], "found 'demmo'. Did you mean demo?"),
        (["demo", "--phots", "3"], "'--phots' is no option of omnishard demo. Did you mean --photos?"),
        (["demo", "--photos", "many"], "'many'"),
        (["demo", "--images", "x"], "needs all of --images, --captions"),
        (["demo", "--steps", "0"], "--steps must be 1 or more; found 0"),
        (
            ["demo", "--images", ".", "--captions", ".", "--train-classes", "nodir", "--test-classes", "."],
            "nodir does not",
        ),
        (["build", "toy", "--output", __file__], "is a file. Give another one"),
        (["train", "nofile.py"], "a recipe file must exist"),
        (["build", "hashtag"], "hashtags"),
        (["train", "hashtag_resnet1"], "hashtag_resnet18"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: list[str], rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert omnishard.main(words) == 2
    message = capsys.readouterr().err
    assert rule in message
    assert message.count("\n") == 1


def test_a_broken_recipe_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("import no_such_library\n\n\ndef recipe():\n    return None\n")
    assert omnishard.main(["train", str(tmp_path / "mine.py"), "--steps", "2"]) == 2
    message = capsys.readouterr().err
    assert "cannot be imported: ModuleNotFoundError: No module named 'no_such_library'" in message
    assert message.count("\n") == 1


def test_parse() -> None:
    assert parse(Options, ["--output", "x", "--size", "7"], "make") == (Options("x", 7), [])
    assert parse(Options, ["--output", "x", "--runner=R"], "make", pass_unknown=True) == (Options("x"), ["--runner=R"])
    with pytest.raises(InputError, match=r"--output must be given\. See make --help"):
        parse(Options, [], "make")
    with pytest.raises(InputError, match=r"'--sise' is no option of make\. Did you mean --size\?"):
        parse(Options, ["--output", "x", "--sise", "3"], "make")
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["--help"], "make")
    assert stop.value.code == 0


@pytest.mark.parametrize(
    "words", [["--help"], ["build", "--help"], ["train", "--help"], ["claims", "--help"], ["demo", "--help"]]
)
def test_help_teaches_without_loading_anything_heavy(words: list[str]) -> None:
    code = "import sys, omnishard\ntry:\n    omnishard.main(sys.argv[1:])\nexcept SystemExit:\n    pass\nprint('HEAVY', [m for m in ('torch', 'apache_beam', 'PIL', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert len(done.stdout.splitlines()) > 5


def test_doctor_tells_a_missing_library_and_how_to_mend_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.examine(doctor.Part(("numpy",), "numpy", "", ""))[1] == ""
    state, remedy = doctor.examine(doctor.Part(("no-such-dist",), "no_such_module", "", "graph"))
    assert (state, remedy) == ("missing", 'pip install "omnishard[graph]"')
    state, remedy = doctor.examine(doctor.Part(("numpy", "pillow"), "numpy", "", "graph"))
    assert "overwrite each other" in state
    assert remedy.startswith("pip uninstall -y numpy pillow && ")
