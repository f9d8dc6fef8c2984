"""Mahajan et al. 2018 in miniature: does pretraining on noisy tags help a transfer with few labels?

The arms differ in the weights they start from and in nothing else: same network, same few labels, same steps, same
learning rate. The difference is paired over the seeds, each of which draws other labels (and other random weights).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from sharding import report
from sharding.errors import InputError
from sharding.files import exists, join, write_atomic
from sharding.manifest import read_manifest, read_vocabulary
from trainers.claims.options import HashtagPretraining
from trainers.evaluate.classify import mean_interval
from trainers.recipes import hashtag_resnet18, linear_probe, transfer_resnet18
from trainers.run_folder import read_metrics

logger = logging.getLogger(__name__)

ARMS = {
    "scratch": "from random weights",
    "fine-tuned": "fine-tuned from the tags",
    "linear probe": "linear probe on frozen features",
}


def run(options: HashtagPretraining) -> int:
    """Pretrain once, transfer with every arm and seed, write result.json and report.html; returns the exit code."""
    if options.seeds < 2:
        raise InputError(f"an interval needs at least 2 seeds; found {options.seeds}: 3 are the default.")
    begin = time.monotonic()
    pretrained = join(options.output, "pretrain")
    outcome = replace(hashtag_resnet18.recipe(), shards=options.tagged, output=pretrained, steps=options.steps).run(
        "hashtag_resnet18"
    )
    if outcome != "finished":
        return 130
    top1: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in range(options.seeds):
        for arm in ARMS:
            folder = join(options.output, f"{arm.replace(' ', '-')}-{seed}")
            logger.info("%s, seed %d of %d", ARMS[arm], seed + 1, options.seeds)
            if _transfer(options, arm, seed, pretrained, folder) != "finished":
                return 130
            top1[arm].append(100 * _measured(folder)["test_top_1"])
    result = summarise(options, top1)
    write_atomic(join(options.output, "result.json"), (json.dumps(result, indent=1) + "\n").encode())
    write_atomic(join(options.output, "report.html"), _page(options, result, top1).encode())
    logger.info("%s (%.0f s)", result["sentence"], time.monotonic() - begin)
    return 0


def _transfer(options: HashtagPretraining, arm: str, seed: int, pretrained: str, folder: str) -> str:
    if arm == "linear probe":
        probe = replace(
            linear_probe.recipe(),
            shards=options.train,
            test_shards=options.test,
            output=folder,
            labels_per_class=options.labels_per_class,
            seed=seed,
            weights=pretrained,
        )
        return probe.run("linear_probe")
    transfer = replace(
        transfer_resnet18.recipe(),
        shards=options.train,
        test_shards=options.test,
        output=folder,
        labels_per_class=options.labels_per_class,
        seed=seed,
        weights=pretrained if arm == "fine-tuned" else "",
        steps=options.transfer_steps,
    )
    return transfer.run("transfer_resnet18")


def _measured(folder: str) -> dict[str, float]:
    """The last evaluation of a run."""
    return next(line for line in reversed(read_metrics(folder)) if "test_top_1" in line)


def summarise(options: HashtagPretraining, top1: dict[str, list[float]]) -> dict[str, object]:
    """Means with 95 % half-widths, the paired differences to the scratch arm, the verdict, and one sentence that says it.

    Args:
        top1: accuracy in % for each arm, one value per seed.
    """
    means = {arm: mean_interval(values) for arm, values in top1.items()}
    differences = {
        arm: mean_interval([a - b for a, b in zip(values, top1["scratch"], strict=True)])
        for arm, values in top1.items()
        if arm != "scratch"
    }
    gain, half = differences["fine-tuned"]
    verdict = "shown" if gain - half > 0 else "opposite" if gain + half < 0 else "not shown"
    says = {
        "shown": "Pretraining helped",
        "opposite": "Pretraining hurt",
        "not shown": "It is not shown that pretraining helps",
    }
    test = read_manifest(options.test).kept
    sentence = (
        f"{says[verdict]}: with {options.labels_per_class} labels per class, top-1 on {test} test photos is "
        f"{means['scratch'][0]:.1f} % from scratch and {means['fine-tuned'][0]:.1f} % after pretraining on "
        f"{read_manifest(options.tagged).kept} tagged photos: {gain:+.1f} points, 95 % interval {gain - half:+.1f} to "
        f"{gain + half:+.1f} over {options.seeds} seeds; a linear probe reaches {means['linear probe'][0]:.1f} %."
    )
    return {
        "claim": "hashtag_pretraining",
        "verdict": verdict,
        "sentence": sentence,
        "top1": {arm: means[arm][0] for arm in ARMS},
        "half_width": {arm: means[arm][1] for arm in ARMS},
        "difference": {arm: {"mean": d[0], "half_width": d[1]} for arm, d in differences.items()},
        "runs": top1,
        "chance": 100 / len(read_vocabulary(options.train)),
    }


def _page(options: HashtagPretraining, result: dict[str, object], top1: dict[str, list[float]]) -> str:
    means: dict[str, float] = result["top1"]  # type: ignore[assignment]
    widths: dict[str, float] = result["half_width"]  # type: ignore[assignment]
    number: Callable[[float], str] = "{:.1f}".format
    runs = {
        f"{arm}, seed {seed}": f"{arm.replace(' ', '-')}-{seed}/report.html"
        for arm in ARMS
        for seed in range(options.seeds)
    }
    rows = [[ARMS[arm], number(means[arm]), number(widths[arm]), *map(number, values)] for arm, values in top1.items()]
    return report.page(
        "Does pretraining on tags help?",
        report.section(
            "Result",
            report.text(str(result["sentence"])),
            report.bar_chart(means, x="", y="top-1 accuracy on the test photos, %", errors=widths),
            report.table(["arm", "mean top-1, %", "± 95 %", *(f"seed {s}" for s in range(options.seeds))], rows),
            report.text(
                f"Chance is {number(float(str(result['chance'])))} %. Every arm has the same network, labels, steps and learning "
                "rate; the linear probe trains only the last layer. One pretraining serves all seeds: the interval covers the "
                "choice of the few labels and the random weights of the transfer, not another pretraining."
            ),
        ),
        report.section(
            "Runs",
            report.links(
                {"pretraining": "pretrain/report.html"}
                | {k: v for k, v in runs.items() if exists(join(options.output, v))}
            ),
        ),
        subtitle="Mahajan et al. 2018 (arXiv 1805.00932) in miniature.",
    )
