"""Classification and hashtag prediction: accuracy, precision, average precision, and how far to trust them.

Scores are (N, C), higher is likelier. Labels are (N, K) int64, the label ids of each image padded with -1; (N,) serves for
one label each. A tie is settled against the model: among equal scores the wrong labels come first, so a model that gives
every label the same score gets nothing for it. `omnishard evaluate classify` computes the same from two csv files.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
import torch
from torch import Tensor

from sharding import files
from sharding.errors import InputError
from sharding.options import parse


def top_k_accuracy(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Share of the images that have one of their labels among the k best scores; 1.0 when k >= C.

    Raises:
        ValueError: no image, shapes that do not match, a label outside [0, C), or a score that is NaN.
    """
    return float((_hits(scores, labels, k) > 0).double().mean())


def precision_at_k(scores: Tensor, labels: Tensor, k: int = 1) -> float:
    """Mean over the images of (labels among the k best scores) / k; an image with fewer than k labels cannot reach 1.

    Raises:
        ValueError: as for `top_k_accuracy`.
    """
    return float(_hits(scores, labels, k).double().mean() / k)


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision of each class over the images, (C,) float64; NaN for a class without a positive.

    The sum over recall steps of the precision there, not interpolated; images of equal score enter together.

    Raises:
        ValueError: as for `top_k_accuracy`.
    """
    relevant = _relevant(scores, labels)
    scores, order = scores.sort(dim=0, descending=True)
    relevant = relevant.gather(0, order)
    ranks = torch.arange(1, len(scores) + 1, device=scores.device).unsqueeze(1)  # (N, 1)
    # Images of one score share the rank of the last of them.
    ends = torch.ones_like(relevant)
    ends[:-1] = scores[:-1] != scores[1:]
    shared = torch.where(ends, ranks, len(scores)).flip(0).cummin(dim=0).values.flip(0)  # (N, C)
    precision = relevant.cumsum(0).gather(0, shared - 1) / shared.double()
    return (precision * relevant).sum(0) / relevant.sum(0)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean of `average_precision` over the classes that have a positive."""
    return float(average_precision(scores, labels).nanmean())


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its Student t interval, for one value per seed; one value alone has an infinite half-width."""
    if len(values) == 1:
        return values[0], math.inf
    spread = stdev(values) / math.sqrt(len(values))
    return fmean(values), _t_quantile(confidence, len(values) - 1) * spread


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of an accuracy of `correct` out of `total` images."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, scale = correct / total, 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def _hits(scores: Tensor, labels: Tensor, k: int) -> Tensor:
    """How many of the k best-scored labels are right, (N,), without a full sort."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}.")
    relevant = _relevant(scores, labels)
    k = min(k, scores.shape[1])
    worst = scores.topk(k).values[:, -1:]  # (N, 1)
    above, level = scores > worst, scores == worst
    left = k - above.sum(1) - (level & ~relevant).sum(1)  # places that the wrong labels of the last score leave free
    return (above & relevant).sum(1) + left.clamp(min=0)


def _relevant(scores: Tensor, labels: Tensor) -> Tensor:
    """Which label belongs to which image, (N, C) bool."""
    labels = labels.unsqueeze(1) if labels.ndim == 1 else labels
    if scores.ndim != 2 or len(scores) == 0 or len(labels) != len(scores):
        raise ValueError(
            f"scores must be (N, C) and labels (N, K) with N >= 1, not {tuple(scores.shape)} and {tuple(labels.shape)}."
        )
    num_classes = scores.shape[1]
    if labels.max() >= num_classes or labels.min() < -1:
        raise ValueError(f"Labels must lie in [0, {num_classes}), not in [{labels.min()}, {labels.max()}].")
    if scores.isnan().any():
        raise ValueError(f"Scores must be numbers; image {int(scores.isnan().any(1).nonzero()[0])} has NaN.")
    relevant = torch.zeros(len(scores), num_classes + 1, dtype=torch.bool, device=scores.device)
    return relevant.scatter_(1, labels.where(labels >= 0, num_classes), True)[
        :, :-1
    ]  # padding goes to the extra column


def _t_quantile(confidence: float, degrees: int) -> float:
    """The t with P(|T| <= t) = confidence, by bisection on the closed form of the distribution for whole degrees."""
    low, high = 0.0, math.pi / 2  # of theta = atan(t / sqrt(degrees))
    for _ in range(100):
        theta = (low + high) / 2
        term = total = math.cos(theta) if degrees % 2 else 1.0
        for n in range(2 + degrees % 2, degrees, 2):
            term *= math.cos(theta) ** 2 * (n - 1) / n
            total += term
        inside = math.sin(theta) * total
        if degrees % 2:
            inside = 2 / math.pi * (theta + (inside if degrees > 1 else 0.0))
        low, high = (theta, high) if inside < confidence else (low, theta)
    return math.sqrt(degrees) * math.tan(low)


@dataclass(frozen=True)
class Options:
    """Compare predictions with labels: top-1, top-k, precision at k and mean average precision.

    Only keys that both files have are scored; keys of one file alone are counted and named.
    """

    predictions: str
    """csv with the columns key,score_0,...,score_{C-1}, or key,label for the best label alone."""
    labels: str
    """csv with the columns key,label; a label is an id (3) or several (1 5 9)."""
    k: int = 5
    """Places looked at by top-k and by precision at k."""
    json: str = ""
    """File to write the results to, for machines."""


def main(arguments: list[str]) -> int:
    """`omnishard evaluate classify`: prints a table and returns 0.

    Raises:
        InputError: a file that cannot be read or that does not have the columns, keys, labels and scores asked for.
    """
    options, _ = parse(Options, arguments, prog="omnishard evaluate classify")
    if options.k < 1:
        raise InputError(f"--k must be at least 1, not {options.k}.")
    labels = _read_labels(options.labels)
    predictions = _read_predictions(options.predictions)
    results = _score(labels, predictions, options)
    for name, value in results.items():
        if isinstance(value, list):
            print(f"{name:<34} {value[0]:.4f} .. {value[1]:.4f}")
        else:
            print(f"{name:<34} {value:.4f}" if isinstance(value, float) else f"{name:<34} {value}")
    for what, keys in (("no prediction", labels.keys() - predictions), ("no label", predictions.keys() - labels)):
        if keys:
            named = ", ".join(sorted(keys)[:5]) + (", ..." if len(keys) > 5 else "")
            print(f"{len(keys)} keys have {what} and are left out: {named}")
    if options.json:
        only = {"missing": sorted(labels.keys() - predictions), "extra": sorted(predictions.keys() - labels)}
        record = {"options": asdict(options), "results": results, **only}
        files.write_atomic(options.json, (json.dumps(record, indent=2) + "\n").encode())
    return 0


def _score(
    labels: dict[str, list[int]], predictions: dict[str, list[int] | np.ndarray], options: Options
) -> dict[str, int | float | list[float]]:
    keys = sorted(labels.keys() & predictions.keys())
    if not keys:
        raise InputError(
            f"No key is in both files: {options.labels} has {next(iter(labels))!r}, "
            f"{options.predictions} has {next(iter(predictions))!r}; the keys must be those of the shards."
        )
    results: dict[str, int | float | list[float]] = {
        "labelled": len(labels),
        "predicted": len(predictions),
        "scored": len(keys),
    }
    first = predictions[keys[0]]
    if isinstance(first, list):  # the best label alone
        correct = sum(predictions[key][0] in labels[key] for key in keys)
        top1 = correct / len(keys)
    else:
        scores = torch.from_numpy(np.stack([np.asarray(predictions[key]) for key in keys]))  # (N, C)
        for key in keys:
            if max(labels[key]) >= len(first):
                raise InputError(
                    f"A label must be below the {len(first)} scores of {options.predictions}, but key {key!r} "
                    f"has {max(labels[key])}; give both files the same vocabulary."
                )
        width = max(len(labels[key]) for key in keys)
        padded = torch.tensor([labels[key] + [-1] * (width - len(labels[key])) for key in keys])  # (N, K)
        top1 = top_k_accuracy(scores, padded)
        correct = round(top1 * len(keys))
    results["top-1"] = top1
    results["top-1, 95 % interval"] = list(wilson_interval(correct, len(keys)))
    if len(keys) < len(labels):
        results["top-1, missing counted as wrong"] = correct / len(labels)
    if not isinstance(first, list):
        results[f"top-{options.k}"] = top_k_accuracy(scores, padded, options.k)
        results[f"precision@{options.k}"] = precision_at_k(scores, padded, options.k)
        results["mAP"] = mean_average_precision(scores, padded)
        results["classes in mAP"] = len({label for key in keys for label in labels[key]})
    return results


def _read_labels(path: str) -> dict[str, list[int]]:
    header, rows = _read_csv(path)
    if header != ["key", "label"]:
        raise InputError(f"{path} must have the columns key,label, not {','.join(header)[:60]}.")
    return {key: _parse_labels(cells[0], where) for key, cells, where in rows}


def _read_predictions(path: str) -> dict[str, list[int] | np.ndarray]:
    header, rows = _read_csv(path)
    if header == ["key", "label"]:
        best = {key: _parse_labels(cells[0], where) for key, cells, where in rows}
        for key, labels in best.items():
            if len(labels) > 1:
                raise InputError(f"A prediction is one label, but key {key!r} of {path} has {len(labels)}.")
        return dict(best)
    if len(header) < 2 or header != ["key", *(f"score_{i}" for i in range(len(header) - 1))]:
        raise InputError(
            f"{path} must have the columns key,score_0,score_1,... or key,label, not {','.join(header)[:60]}."
        )
    predictions: dict[str, list[int] | np.ndarray] = {}
    for key, cells, where in rows:
        try:
            scores = np.array(cells, dtype=np.float64)
        except ValueError as error:
            raise InputError(f"Scores must be numbers; {where}: {error}.") from None
        if np.isnan(scores).any():
            raise InputError(f"Scores must be numbers, but {where} (key {key!r}) has NaN; leave that row out.")
        predictions[key] = scores
    return predictions


def _read_csv(path: str) -> tuple[list[str], list[tuple[str, list[str], str]]]:
    """The header, and of each row its key, the other cells, and where it stands."""
    try:
        lines = csv.reader(io.StringIO(files.read_bytes(path).decode("utf-8-sig"), newline=""), strict=True)
        header = next(lines, [])
        rows = list(_rows(lines, path, len(header)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as csv in UTF-8: {error}.") from None
    if not rows:
        raise InputError(f"{path} must have at least one row below its header.")
    return header, rows


def _rows(lines: Iterator[list[str]], path: str, width: int) -> Iterator[tuple[str, list[str], str]]:
    seen: dict[str, int] = {}
    for number, row in enumerate(lines, start=2):
        if not row:
            continue
        where = f"row {number} of {path}"
        if len(row) != width:
            raise InputError(f"Every row must have the {width} cells of the header, but {where} has {len(row)}.")
        if row[0] in seen:
            raise InputError(f"A key may occur once, but {row[0]!r} is in rows {seen[row[0]]} and {number} of {path}.")
        seen[row[0]] = number
        yield row[0], row[1:], where


def _parse_labels(cell: str, where: str) -> list[int]:
    words = cell.split()
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(f"A label must be ids from 0 on (3, or 1 5 9), but {where} has {cell!r}.")
    return sorted({int(word) for word in words})
