"""Measures against scikit-learn, SciPy and arrays worked by hand; the command on small csv files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import average_precision_score, top_k_accuracy_score

from sharding.errors import InputError
from trainers.evaluate.classify import (
    average_precision,
    main,
    mean_average_precision,
    mean_interval,
    precision_at_k,
    top_k_accuracy,
    wilson_interval,
)

# Best first: image 0 is 2 0 1 3, image 1 is 3 1 0 2, image 2 is 0 3 2 1.
SCORES = torch.tensor([[0.3, 0.2, 0.4, 0.1], [0.2, 0.3, 0.1, 0.4], [0.9, 0.0, 0.1, 0.2]])
TAGS = torch.tensor([[0, 3, -1], [3, 1, 2], [1, -1, -1]])


def test_top_k_by_hand() -> None:
    assert top_k_accuracy(SCORES, TAGS, 1) == pytest.approx(1 / 3)
    assert top_k_accuracy(SCORES, TAGS, 2) == pytest.approx(2 / 3)
    assert top_k_accuracy(SCORES, TAGS, 9) == 1.0


def test_precision_by_hand() -> None:
    assert precision_at_k(SCORES, TAGS, 1) == pytest.approx((0 + 1 + 0) / 3)
    assert precision_at_k(SCORES, TAGS, 2) == pytest.approx((1 / 2 + 2 / 2 + 0) / 3)
    assert precision_at_k(SCORES, TAGS, 4) == pytest.approx((2 / 4 + 3 / 4 + 1 / 4) / 3)
    assert precision_at_k(SCORES, TAGS, 8) == pytest.approx((2 / 8 + 3 / 8 + 1 / 8) / 3)


def test_average_precision_by_hand() -> None:
    expected = [
        1 / 2,  # images 2 (0.9, wrong), 0 (0.3, right), 1 (0.2, wrong)
        (1 / 1 + 2 / 3) / 2,  # images 1 (0.3, right), 0 (0.2, wrong), 2 (0.0, right)
        1 / 3,  # images 0 (0.4, wrong), then 1 (right) and 2 (wrong) together at 0.1
        (1 / 1 + 2 / 3) / 2,  # images 1 (0.4, right), 2 (0.2, wrong), 0 (0.1, right)
    ]
    assert average_precision(SCORES, TAGS).tolist() == pytest.approx(expected)
    assert mean_average_precision(SCORES, TAGS) == pytest.approx(sum(expected) / 4)


def test_ties_count_against_the_model() -> None:
    level = torch.zeros(2, 4)
    labels = torch.tensor([[0, 1], [2, -1]])
    assert top_k_accuracy(level, labels, 2) == 0.0
    # Image 0 has two wrong labels before its two right ones, image 1 has three before its one.
    assert precision_at_k(level, labels, 3) == pytest.approx((1 / 3 + 0) / 2)
    assert precision_at_k(level, labels, 4) == pytest.approx((2 / 4 + 1 / 4) / 2)


@pytest.mark.parametrize("rounding", [8, 1])
def test_equals_scikit_learn(rounding: int) -> None:
    """With distinct scores, and with many equal ones (one decimal)."""
    rng = np.random.default_rng(0)
    scores = rng.random((300, 12)).round(rounding)
    relevant = rng.random((300, 12)) < 0.15
    relevant[:, 7] = False  # no positive: left out of the mean
    relevant[np.arange(300), rng.integers(0, 7, 300)] = True
    labels = torch.full((300, 12), -1)
    for row, mask in zip(labels, relevant, strict=True):
        row[: mask.sum()] = torch.from_numpy(np.flatnonzero(mask))
    ours = average_precision(torch.from_numpy(scores), labels)
    theirs = [average_precision_score(relevant[:, c], scores[:, c]) for c in range(12) if c != 7]
    assert math.isnan(ours[7])
    assert ours[torch.arange(12) != 7].tolist() == pytest.approx(theirs)
    assert mean_average_precision(torch.from_numpy(scores), labels) == pytest.approx(np.mean(theirs))


def test_top_k_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.random((200, 10)), rng.integers(0, 10, 200)
    for k in (1, 3, 5):
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(10))
        assert top_k_accuracy(torch.from_numpy(scores), torch.from_numpy(labels), k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "labels", "k", "words"),
    [
        (SCORES, TAGS[:2], 1, r"\(3, 4\) and \(2, 3\)"),
        (SCORES[:0], TAGS[:0], 1, "N >= 1"),
        (SCORES, TAGS + 1, 1, r"\[0, 4\), not in \[0, 4\]"),
        (SCORES.log().sub(math.inf).mul(0), TAGS, 1, "image 0 has NaN"),
        (SCORES, TAGS, 0, "at least 1, not 0"),
    ],
)
def test_refusals(scores: torch.Tensor, labels: torch.Tensor, k: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        top_k_accuracy(scores, labels, k)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 11, 60])
def test_mean_interval_equals_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    low, high = scipy.stats.t.interval(0.95, count - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    mean, half = mean_interval(values.tolist())
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_one_seed_says_nothing_about_spread() -> None:
    assert mean_interval([0.5]) == (0.5, math.inf)


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (3, 10), (10, 10), (761, 1000)])
def test_wilson_interval_equals_scipy(correct: int, total: int) -> None:
    expected = scipy.stats.binomtest(correct, total).proportion_ci(method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high))


def _write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three images are scored; one has no prediction, one no label, and both are named."""
    scores = [f"{key},{','.join(map(str, row))}" for key, row in zip("abc", SCORES.tolist(), strict=True)]
    predictions = _write(tmp_path / "p.csv", "key,score_0,score_1,score_2,score_3", *scores, "spare,1,0,0,0")
    labels = _write(tmp_path / "l.csv", "key,label", "a,0 3", "b,3 1 2", "c,1", "lost,2")
    record = tmp_path / "out" / "results.json"
    assert main(["--predictions", predictions, "--labels", labels, "--k", "2", "--json", str(record)]) == 0
    out = capsys.readouterr().out
    assert "1 keys have no prediction and are left out: lost" in out
    assert "1 keys have no label and are left out: spare" in out
    written = json.loads(record.read_text())
    results = written["results"]
    assert (written["missing"], written["extra"]) == (["lost"], ["spare"])
    assert (results["labelled"], results["predicted"], results["scored"]) == (4, 4, 3)
    assert results["top-1"] == pytest.approx(1 / 3)
    assert results["top-1, missing counted as wrong"] == pytest.approx(1 / 4)
    assert results["top-2"] == pytest.approx(2 / 3)
    assert results["precision@2"] == pytest.approx(1 / 2)
    assert results["mAP"] == pytest.approx((1 / 2 + 5 / 6 + 1 / 3 + 5 / 6) / 4)


def test_command_on_best_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = _write(tmp_path / "p.csv", "key,label", "a,1", "b,2")
    labels = _write(tmp_path / "l.csv", "key,label", "a,1", "b,0")
    main(["--predictions", predictions, "--labels", labels])
    out = capsys.readouterr().out
    assert "0.5000" in out
    assert "mAP" not in out


GOOD = ["key,score_0,score_1", "a,0.1,0.9"]


@pytest.mark.parametrize(
    ("predictions", "labels", "words"),
    [
        (GOOD, ["key,tag", "a,1"], "columns key,label, not key,tag"),
        (["key,score_1", "a,1"], ["key,label", "a,0"], "key,score_0,score_1"),
        (GOOD, ["key,label"], "at least one row"),
        (GOOD, ["key,label", "b,1"], "No key is in both files: .*'b'.*'a'"),
        (GOOD, ["key,label", "a,2"], "below the 2 scores .* key 'a' has 2"),
        (GOOD, ["key,label", "a,cat"], "row 2 of .* has 'cat'"),
        (GOOD, ["key,label", "a,1", "a,1"], "'a' is in rows 2 and 3"),
        ([GOOD[0], "a,0.1"], ["key,label", "a,1"], "3 cells of the header, but row 2 .* has 2"),
        ([GOOD[0], "a,0.1,nan"], ["key,label", "a,1"], "key 'a'.* has NaN"),
        ([GOOD[0], "a,0.1,x"], ["key,label", "a,1"], "must be numbers; row 2"),
        (["key,label", "a,1 2"], ["key,label", "a,1"], "A prediction is one label"),
    ],
)
def test_command_refuses(tmp_path: Path, predictions: list[str], labels: list[str], words: str) -> None:
    files = [_write(tmp_path / "p.csv", *predictions), _write(tmp_path / "l.csv", *labels)]
    with pytest.raises(InputError, match=words) as refused:
        main(["--predictions", files[0], "--labels", files[1]])
    assert "\n" not in str(refused.value)


def test_command_names_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv cannot be read"):
        main(["--predictions", "x", "--labels", str(tmp_path / "absent.csv")])
