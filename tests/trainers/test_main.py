"""What the train command says: one line for what was asked wrongly, help without torch, a check that writes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainers.__main__ import main

TINY = ["--image-size", "32", "--batch-size", "8", "--steps", "2", "--threads", "1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hashtag_resnet81"], "found 'hashtag_resnet81'. Did you mean hashtag_resnet18?"),
        (["hashtag_resnet18", "--batchsize", "3"], "Did you mean --batch-size?"),
        (["hashtag_resnet18", "--steps", "many"], "--steps"),
        (["hashtag_resnet18", "--model", "resnet50"], "--model is a function: write a recipe file"),
        (["hashtag_resnet18", "--schedule=cosine"], "--schedule is a function: write a recipe file"),
        (["hashtag_resnet18", "--shards", "nowhere"], "nowhere does not exist"),
        (["hashtag_resnet18", "--check", "--shards", "nowhere"], "nowhere does not exist"),
        (["linear_probe", "--weights", ""], "needs --weights"),
        ([], "the first word is a recipe"),
    ],
)
def test_one_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, errors = capsys.readouterr()
    assert words in errors
    assert errors.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_help_needs_no_torch(tmp_path: Path) -> None:
    for arguments in (["--help"], ["hashtag_resnet18", "--help"]):
        code = f"import sys; from trainers.__main__ import main; main({arguments!r}); assert 'torch' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "hashtag_resnet18" in done.stdout
    assert "--image-size int" in done.stdout
    assert "--batch-size int" in done.stdout  # of the base class


@pytest.mark.parametrize("recipe", ["hashtag_resnet18", "linear_probe"])
def test_check_says_what_a_run_would_be_and_writes_nothing(
    recipe: str,
    tag_shards: str,
    class_shards: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if recipe == "linear_probe":
        run = ["hashtag_resnet18", "--shards", tag_shards, "--output", str(tmp_path / "w"), *TINY]
        assert main(run) == 0
        options = ["--shards", class_shards, "--test-shards", class_shards, "--weights", str(tmp_path / "w")]
    else:
        options = ["--shards", tag_shards, *TINY]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    capsys.readouterr()
    assert main([recipe, "--check", *options, "--output", "run"]) == 0
    out = capsys.readouterr().out
    assert "96 samples in" in out
    assert " parameters" in out
    assert "whole run" in out
    if recipe == "hashtag_resnet18":
        assert "8 x 1 ranks x 1 loader threads" in out
        assert "a guess at random gives 1.7918" in out  # ln 6
        assert "0.19 over 86 training samples" in out  # 2 steps of 8
    assert list(Path.cwd().iterdir()) == []


def test_a_recipe_can_be_a_file_of_ones_own(
    tag_shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        '"""Mine."""\nfrom dataclasses import replace\nfrom trainers.recipes import hashtag_resnet18\n\n'
        "def recipe():\n    return replace(hashtag_resnet18.tiny(), lr=0.02)\n"
    )
    assert main([str(file), "--shards", tag_shards, "--output", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "model.json").exists()
    file.write_text("x = 1\n")
    assert main([str(file)]) == 2
    assert "defines recipe()" in capsys.readouterr().err
