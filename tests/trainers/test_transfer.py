"""Weights that move from run to run, few labels, and the linear probe against scikit-learn."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from sharding.errors import InputError
from sharding.manifest import Label, vocabulary_bytes
from sharding.plan import open_plan
from sharding.stream import read_samples
from trainers.checkpoint import load_weights
from trainers.fit import Place, fit
from trainers.models.resnet import resnet
from trainers.probe import held_out, logistic_regression
from trainers.recipes import hashtag_resnet18, linear_probe, transfer_resnet18
from trainers.run_folder import read_metrics
from trainers.transfer import load_trunk

CPU = Place(0, 1, torch.device("cpu"))
SMALL = partial(resnet, (1, 1, 1, 1), width=16, stem="small")


@pytest.fixture(scope="module")
def pretrained(tag_shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = str(tmp_path_factory.mktemp("pretrained"))
    fit(replace(hashtag_resnet18.tiny(), shards=tag_shards, output=output, steps=30, batch_size=16, lr=0.05))
    return output


def test_all_but_the_head_is_mapped_and_said(pretrained: str, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    model = SMALL(num_classes=4)
    head = model.fc.weight.clone()
    with caplog.at_level(logging.INFO):
        load_trunk(model, pretrained)
    weights, _ = load_weights(pretrained)
    state = model.state_dict()
    assert all(torch.equal(state[name], t) for name, t in weights.items() if not name.startswith("fc."))
    assert torch.equal(model.fc.weight, head)
    assert f"{len(weights) - 2} mapped, 0 unused (none), 0 missing (none), new head: fc.bias, fc.weight" in caplog.text


def test_names_of_one_side_only_are_said(pretrained: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights, _ = load_weights(pretrained)
    weights["teacher.weight"] = weights.pop("bn1.bias")
    save_file(weights, tmp_path / "other.safetensors")
    with caplog.at_level(logging.INFO):
        load_trunk(SMALL(num_classes=4), str(tmp_path / "other.safetensors"))
    assert "1 unused (teacher.weight), 1 missing (bn1.bias)" in caplog.text


def test_weights_of_another_network_are_refused(pretrained: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"conv1\.weight is \[16, 3, 3, 3\] .* \[32, 3, 3, 3\]"):
        load_trunk(resnet((1, 1, 1, 1), width=32, stem="small", num_classes=4), pretrained)
    save_file({"a": torch.zeros(1)}, tmp_path / "alien.safetensors")
    with pytest.raises(InputError, match="none of the 1 names"):
        load_trunk(SMALL(num_classes=4), str(tmp_path / "alien.safetensors"))


def test_fine_tuning_from_a_run_on_few_labels(pretrained: str, class_shards: str, tmp_path: Path) -> None:
    run = replace(
        transfer_resnet18.tiny(),
        shards=class_shards,
        test_shards=class_shards,
        weights=pretrained,
        output=str(tmp_path / "run"),
        labels_per_class=5,
        seed=2,
    )
    plan = run.open_plan()
    samples = read_samples(plan, plan.in_order(0, plan.samples_per_pass), ["cls"])
    assert sorted(int(s.members["cls"]) for s in samples) == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    assert fit(run, "few") == "finished"
    last = read_metrics(run.output)[-1]
    assert 0.0 <= last["test_top_1"] <= 1.0
    assert last["test_top_5"] == 1.0
    card = json.loads(Path(run.output, "model.json").read_text())
    assert card["initial_weights"] == pretrained


def test_all_layers_learn(pretrained: str, class_shards: str, tmp_path: Path) -> None:
    run = replace(
        transfer_resnet18.tiny(), shards=class_shards, test_shards="", weights=pretrained, output=str(tmp_path)
    )
    fit(run)
    before, after = load_weights(pretrained)[0], load_weights(str(tmp_path))[0]
    moved = [name for name in before if not name.startswith("fc.") and not torch.equal(before[name], after[name])]
    assert {"conv1.weight", "layer4.0.conv2.weight"} <= set(moved)


@pytest.fixture
def renamed(class_shards: str, tmp_path: Path) -> str:
    """The class shards with two labels exchanged."""
    import shutil

    folder = tmp_path / "renamed"
    shutil.copytree(class_shards, folder)
    names = ["cross", "circle", "square", "stripe"]
    (folder / "vocabulary.tsv").write_bytes(vocabulary_bytes([Label(i, n, (n,), 0) for i, n in enumerate(names)]))
    return str(folder)


@pytest.mark.parametrize("regime", [transfer_resnet18.tiny(), linear_probe.tiny()])
def test_test_shards_with_other_classes_are_refused(
    regime: Any, renamed: str, class_shards: str, tmp_path: Path
) -> None:
    run = replace(regime, shards=class_shards, test_shards=renamed, weights="w", output=str(tmp_path / "run"))
    with pytest.raises(InputError, match=r"--vocabulary TRAIN_FOLDER/vocabulary\.tsv"):
        run.run("x")
    assert not (tmp_path / "run").exists()


def test_logistic_regression_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(90, 6))
    labels = (features @ rng.normal(size=(6, 3)) + rng.normal(size=(90, 3))).argmax(1)
    penalty = 0.03
    weight, bias = logistic_regression(torch.from_numpy(features), torch.from_numpy(labels), 3, penalty)
    theirs = LogisticRegression(C=1 / (penalty * 90), tol=1e-9, max_iter=5000).fit(features, labels)
    np.testing.assert_allclose(weight.numpy(), theirs.coef_, atol=1e-4)
    ours = (torch.from_numpy(features) @ weight.T + bias).softmax(1)
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(features), atol=1e-4)


def test_the_penalty_is_chosen_on_a_part_of_each_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 2 + [3])
    held = held_out(labels, 0.2, 0)
    assert [int(held[labels == c].sum()) for c in range(4)] == [2, 1, 1, 0]
    assert torch.equal(held, held_out(labels, 0.2, 0))
    with pytest.raises(InputError, match="--labels-per-class"):
        held_out(torch.arange(4), 0.2, 0)


def test_the_exported_probe_is_a_plain_model_with_the_reported_accuracy(
    pretrained: str, class_shards: str, tmp_path: Path
) -> None:
    probe = replace(
        linear_probe.tiny(), shards=class_shards, test_shards=class_shards, weights=pretrained, output=str(tmp_path)
    )
    assert probe.run("probe") == "finished"
    reported = read_metrics(str(tmp_path))[-1]
    assert reported["test_top_1_low"] < reported["test_top_1"] <= reported["test_top_1_high"]
    model = SMALL(num_classes=4)
    model.load_state_dict(load_weights(str(tmp_path))[0])
    scorer = replace(hashtag_resnet18.tiny(), shards=class_shards)
    found = scorer.score(model.eval(), open_plan(class_shards), CPU, "test")
    assert found.metrics["test_top_1"] == pytest.approx(reported["test_top_1"], abs=1e-6)
    before, after = load_weights(pretrained)[0], load_weights(str(tmp_path))[0]
    assert all(torch.equal(before[n], after[n]) for n in before if not n.startswith("fc."))  # the trunk is frozen
    assert probe.run("probe") == "finished"  # and the second time does nothing
