"""report.html of a run: what came out, the curves, the labels it does best and worst, the options, where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sharding.files import join, write_atomic
from sharding.report import bar_chart, fold, line_chart, page, section, table, text
from trainers.fit import Evaluation
from trainers.run_folder import read_metrics

_SHOWN = 10  # labels at either end


def write_report(output: str, name: str, options: Mapping[str, str], evaluation: Evaluation) -> None:
    """Write OUTPUT/report.html from metrics.jsonl and the last evaluation."""
    lines = read_metrics(output)
    trained = [line for line in lines if "order" in line]
    evaluated = [line for line in lines if "order" not in line]
    rows = [(key.replace("_", " "), value) for key, value in evaluation.metrics.items()]
    sections = [section("Results", table(("measure", "value"), rows) if rows else text("No evaluation was asked for."))]
    if trained:
        steps = [line["step"] for line in trained]
        curves = {"training": (steps, [line["loss"] for line in trained])}
        curves |= {n[: -len("_loss")]: s for n, s in _series(evaluated).items() if n.endswith("_loss")}
        sections.append(section("Loss", line_chart(curves, x="step", y="loss")))
        rates = {"learning rate": (steps, [line["lr"] for line in trained])}
        sections.append(section("Learning rate", line_chart(rates, x="step", y="learning rate")))
    scores = {
        n: s for n, s in _series(evaluated).items() if not n.endswith("_loss") and n not in ("seconds", "penalty")
    }
    if len(evaluated) > 1 and scores:
        sections.append(section("Evaluation", line_chart(scores, x="step", y="share")))
    if evaluation.per_label:
        ranked = sorted(evaluation.per_label.items(), key=lambda row: (-row[1], row[0]))
        chosen = dict(ranked if len(ranked) <= 2 * _SHOWN else ranked[:_SHOWN] + ranked[-_SHOWN:])
        words = f"{len(ranked)} labels occur in the evaluation" + (
            "." if len(ranked) == len(chosen) else f"; the best and the worst {_SHOWN} are drawn."
        )
        whole = fold("All labels", table(("label", "value"), ranked))
        sections.append(section("Labels", text(words), bar_chart(chosen, x="label", y="value"), whole))
    if trained:
        sections.append(section("Where the time went", table(("part", "seconds", "share"), _times(trained, evaluated))))
    sections.append(section("Options", table(("field", "value"), list(options.items()))))
    last = f"{int(lines[-1]['step']):,} steps" if lines else ""
    write_atomic(join(output, "report.html"), page(f"Run {name}", *sections, subtitle=last).encode())


def _series(lines: Sequence[Mapping[str, float]]) -> dict[str, tuple[list[float], list[float]]]:
    names = dict.fromkeys(key for line in lines for key in line if key != "step")
    return {n: ([x["step"] for x in lines if n in x], [x[n] for x in lines if n in x]) for n in names}


def _times(
    trained: Sequence[Mapping[str, float]], evaluated: Sequence[Mapping[str, float]]
) -> list[tuple[str, float, str]]:
    whole = sum(line["seconds"] for line in trained)
    waiting = sum(line["seconds"] * line["waiting"] for line in trained)
    parts = {
        "network and update": whole - waiting,
        "waiting for data": waiting,
        "evaluation": sum(line.get("seconds", 0.0) for line in evaluated),
    }
    total = max(sum(parts.values()), 1e-9)
    return [(part, round(seconds, 1), f"{100 * seconds / total:.0f} %") for part, seconds in parts.items()]
