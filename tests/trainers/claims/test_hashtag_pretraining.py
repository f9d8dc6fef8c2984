"""The claim's arithmetic by hand, and the whole claim in two steps an arm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sharding.errors import InputError
from trainers.claims.__main__ import main
from trainers.claims.hashtag_pretraining import summarise
from trainers.claims.options import HashtagPretraining


def options(tagged: str, classes: str, output: str) -> HashtagPretraining:
    return HashtagPretraining(tagged=tagged, train=classes, test=classes, output=output)


@pytest.mark.parametrize(
    ("tuned", "gain", "verdict"),
    [((34.0, 36.0, 38.0), 16.0, "shown"), ((18.0, 20.0, 25.0), 1.0, "not shown"), ((4.0, 6.0, 8.0), -14.0, "opposite")],
)
def test_difference_is_paired_with_a_t_interval(
    tag_shards: str, class_shards: str, tuned: tuple[float, ...], gain: float, verdict: str
) -> None:
    """Scratch 18, 20, 22: with 34, 36, 38 every seed gains 16, so the interval has no width, whatever the seeds differ by."""
    runs = {"scratch": [18.0, 20.0, 22.0], "fine-tuned": list(tuned), "linear probe": [30.0, 30.0, 33.0]}
    result = summarise(options(tag_shards, class_shards, ""), runs)
    difference = result["difference"]["fine-tuned"]  # type: ignore[index]
    assert difference["mean"] == pytest.approx(gain)
    if verdict == "not shown":  # 0, 0, 3: deviation sqrt(3), t(0.975, 2) = 4.3027
        assert difference["half_width"] == pytest.approx(4.3027, rel=1e-3)
    assert result["verdict"] == verdict
    assert result["chance"] == 25.0
    assert result["top1"] == {"scratch": 20.0, "fine-tuned": pytest.approx(20 + gain), "linear probe": 31.0}


def test_every_arm_runs_and_the_same_command_is_a_no_op(tag_shards: str, class_shards: str, tmp_path: Path) -> None:
    words = [
        "hashtag_pretraining",
        "--tagged",
        tag_shards,
        "--train",
        class_shards,
        "--test",
        class_shards,
        "--output",
        str(tmp_path),
    ]
    words += ["--seeds", "2", "--steps", "2", "--transfer-steps", "2", "--labels-per-class", "3"]
    assert main(words) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert {arm: len(values) for arm, values in result["runs"].items()} == {
        "scratch": 2,
        "fine-tuned": 2,
        "linear probe": 2,
    }
    page = (tmp_path / "report.html").read_text()
    assert result["sentence"] in page.replace("&#43;", "+")
    assert 'href="fine-tuned-1/report.html"' in page
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert len(before) == 7
    assert main(words) == 0
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}


def test_one_seed_has_no_interval(tag_shards: str, class_shards: str, tmp_path: Path) -> None:
    words = [
        "hashtag_pretraining",
        "--tagged",
        tag_shards,
        "--train",
        class_shards,
        "--test",
        class_shards,
        "--output",
        str(tmp_path / "x"),
    ]
    with pytest.raises(InputError, match="at least 2 seeds; found 1"):
        main([*words, "--seeds", "1"])
    assert not (tmp_path / "x").exists()
    with pytest.raises(InputError, match=r"found 'hashtag_pretrainin'\. Did you mean hashtag_pretraining"):
        main(["hashtag_pretrainin"])
