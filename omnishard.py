"""The one command. It hands each word on to its room, imported only then; `demo` walks the whole way with those words."""

from __future__ import annotations

import importlib
import itertools
import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sharding import __version__
from sharding.errors import InputError
from sharding.files import exists, join, read_bytes, write_atomic
from sharding.options import nearest, parse

# word -> (module with `main(arguments) -> exit code`, what it does)
WORDS = {
    "build": ("pipelines.__main__", "photos, captions, videos -> dataset folders of shards (Apache Beam)"),
    "shards": ("sharding.__main__", "verify, info, browse, index, diff, merge dataset folders"),
    "train": ("trainers.__main__", "run a recipe: pretraining, transfer, probes (PyTorch)"),
    "evaluate": ("trainers.evaluate.__main__", "result files in, a table of metrics out"),
    "claims": ("trainers.claims.__main__", "a paper's central claim in miniature, with seeds and an interval"),
    "demo": ("omnishard", "the whole way on a laptop, offline: photos -> shards -> pretraining -> transfer -> pages"),
    "doctor": ("sharding.doctor", "what is installed, what is missing, the exact command to mend it"),
}


@dataclass(frozen=True)
class Demo:
    """The whole way by one command: tagged photos -> shards -> hashtag pretraining -> transfer with few labels -> index.html.

    omnishard demo                                  on rendered toy photos, offline, about five minutes on two cores

    omnishard demo --output mine --images photos --captions captions.tsv --train-classes a/train --test-classes a/test

    Each step is an omnishard command of its own and is printed before it runs. Interrupt it whenever you like: the same
    command again goes on where it stopped.
    """

    output: str = "demo"
    """Folder for everything; open index.html in it."""
    images: str = ""
    """Your own tagged photos (folder). Without it toy photos are rendered."""
    captions: str = ""
    """Their captions: tsv, csv, jsonl or parquet with the columns image and text."""
    tags_from_words: bool = False
    """The captions are plain sentences without '#'."""
    min_count: int = 5
    """A tag of your own photos becomes a label when at least this many carry it."""
    train_classes: str = ""
    """Your own labelled photos for the transfer, one folder per class."""
    test_classes: str = ""
    """The same classes, other photos: what the transfer is measured on."""
    labels_per_class: int = 5
    """How many labels of each class the transfer may use."""
    seeds: int = 3
    """Transfers per arm; the interval is over them."""
    steps: int = 600
    """Steps of pretraining."""
    transfer_steps: int = 150
    """Steps of each transfer."""
    photos: int = 3000
    """Toy photos to render."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 fine, 1 failed, 2 wrong input, 130 interrupted."""
    word, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for room in ("pipelines", "trainers", "graph_mining", "sharding"):
        logging.getLogger(room).setLevel(logging.INFO)
    try:
        if word in ("-h", "--help", "help"):
            print(_overview())
            return 0
        if word == "--version":
            print(f"omnishard {__version__}")
            return 0
        if word not in WORDS:
            raise InputError(f"a command is one of {', '.join(WORDS)}; found {word!r}.{nearest(word, WORDS)}")
        if word == "demo":
            return run_demo(parse(Demo, rest, "omnishard demo")[0])
        return int(importlib.import_module(WORDS[word][0]).main(rest))
    except InputError as error:
        print(f"omnishard {word}: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(
            f"omnishard {word} needs {error.name}, which is not installed: omnishard doctor says how.", file=sys.stderr
        )
        return 1
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _overview() -> str:
    lines = [
        "usage: omnishard WORD ...",
        "",
        "Visual pretraining from the data pipeline up. Every WORD has --help.",
        "",
    ]
    lines += [f"  {word:<10}{purpose}" for word, (_, purpose) in WORDS.items()]
    return "\n".join([*lines, "", "Begin with: omnishard demo"])


def run_demo(options: Demo) -> int:
    """Run the commands one after the other, then write the page that links all others."""
    begin = time.monotonic()
    out, own = options.output, bool(options.images)
    given = [options.images, options.captions, options.train_classes, options.test_classes]
    if own != all(given) or own != any(given):
        raise InputError(
            "your own data needs all of --images, --captions, --train-classes and --test-classes; found "
            f"{sum(map(bool, given))} of the 4. Without any of them the demo renders toy photos."
        )
    for name in ("images", "captions", "train_classes", "test_classes") if own else ():
        if not exists(getattr(options, name)) and not set("*?,") & set(
            getattr(options, name)
        ):  # captions may be a pattern
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} must exist; {getattr(options, name)} does not: mend the path.")
    for name in ("steps", "transfer_steps", "seeds", "labels_per_class", "photos"):
        least = 2 if name == "seeds" else 1
        if getattr(options, name) < least:
            raise InputError(f"--{name.replace('_', '-')} must be {least} or more; found {getattr(options, name)}.")
    toy = join(out, "toy")
    images, captions, train, test = given if own else [join(toy, "photos"), join(toy, "captions.tsv")] + [
        join(toy, "classes", part) for part in ("train", "test")
    ]  # fmt: skip
    shards = {name: join(out, "shards", name) for name in ("tagged", "train", "test")}
    tags = ["--min-count", str(options.min_count)] if own else ["--vocabulary", join(toy, "vocabulary_truth.tsv")]
    words = ["--tags-from-words"] if options.tags_from_words else []
    small = ["--short-side", "96", "--samples-per-shard", "500"]
    vocabulary = join(shards["train"], "vocabulary.tsv")
    steps = [
        ["build", "hashtags", "--images", images, "--captions", captions, "--output", shards["tagged"],
         *tags, *words, *small],
        ["build", "classes", "--images", train, "--output", shards["train"], *small],
        ["build", "classes", "--images", test, "--output", shards["test"], "--vocabulary", vocabulary, *small],
        ["claims", "hashtag_pretraining", "--tagged", shards["tagged"], "--train", shards["train"], "--test", shards["test"],
         "--output", join(out, "claim"), "--seeds", str(options.seeds), "--steps", str(options.steps),
         "--transfer-steps", str(options.transfer_steps), "--labels-per-class", str(options.labels_per_class)],
    ]  # fmt: skip
    if not own:
        steps.insert(0, ["build", "toy", "--output", toy, "--photos", str(options.photos)])
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}, {time.monotonic() - begin:.0f} s] omnishard {' '.join(step)}", flush=True)
        process = subprocess.Popen([sys.executable, "-m", "omnishard", *step])
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise
        if code:
            print(
                f"the demo stopped at: omnishard {step[0]} {step[1]}. Mend it and give the same command again.",
                file=sys.stderr,
            )
            return code
    result = json.loads(read_bytes(join(out, "claim", "result.json")))
    write_atomic(join(out, "index.html"), _index_page(options, result, steps).encode())
    print(f"\n{result['sentence']}\n{time.monotonic() - begin:.0f} s in all. Open {join(out, 'index.html')}")
    return 0


def _index_page(options: Demo, result: dict[str, object], steps: list[list[str]]) -> str:
    from sharding import report

    pages = {
        "tagged photos: shards": "shards/tagged/report.html",
        "class photos, training: shards": "shards/train/report.html",
        "class photos, test: shards": "shards/test/report.html",
        "did pretraining help? every run": "claim/report.html",
        "the pretraining run": "claim/pretrain/report.html",
    }
    return report.page(
        "Hashtag pretraining, the whole way",
        report.section("What came out", report.text(str(result["sentence"])), report.bar_chart(
            {str(k): float(v) for k, v in dict(result["top1"]).items()},  # type: ignore[call-overload]
            x="", y="top-1 accuracy on the test photos, %",
            errors={str(k): float(v) for k, v in dict(result["half_width"]).items()},  # type: ignore[call-overload]
        )),
        report.section("Some of the tagged photos", report.photo_grid(_first_photos(join(options.output, "shards", "tagged")))),
        report.section("Pages", report.links({k: v for k, v in pages.items() if exists(join(options.output, v))})),
        report.section("The commands", report.table(["step", "command"], [
            (number, "omnishard " + " ".join(step)) for number, step in enumerate(steps, 1)
        ])),
        subtitle="Photos with noisy tags, no other labels, pretrain a network; a few labels per class then adapt it.",
    )  # fmt: skip


def _first_photos(folder: str, count: int = 12) -> list[tuple[bytes, str]]:
    """JPEG and labels of the first samples of a dataset."""
    from sharding.manifest import read_manifest, read_vocabulary
    from sharding.samples import decode_labels
    from sharding.tar import read_shard

    names = [label.name for label in read_vocabulary(folder)]
    samples = itertools.islice(read_shard(join(folder, read_manifest(folder).shards[0].name)), count)
    return [(s.members["jpg"], ", ".join(names[i] for i in decode_labels(s.members))) for s in samples]


if __name__ == "__main__":
    sys.exit(main())
