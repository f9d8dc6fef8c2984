"""What each claim can be asked. Nothing heavy is imported here, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HashtagPretraining:
    """Pretraining on noisy tags helps a transfer with few labels (WSL, arXiv 1805.00932, section 3).

    omnishard claims hashtag_pretraining --tagged shards/tagged --train shards/train --test shards/test --output claim

    One network is pretrained on the tags. Then, for each seed, a few labels per class are drawn, and the same network is
    trained on them three ways: from random weights, from the pretrained weights, and as a linear probe on frozen features.
    """

    tagged: str
    """Dataset folder of the tagged photos (omnishard build hashtags)."""
    train: str
    """Dataset folder of the labelled photos (omnishard build classes)."""
    test: str
    """Dataset folder with the same classes and other photos; used only to measure."""
    output: str
    """Folder for the runs, result.json and report.html. The same command again goes on where it stopped."""
    seeds: int = 3
    """Draws of the few labels; the interval is over them."""
    labels_per_class: int = 5
    """Labels of each class that the transfer may use."""
    steps: int = 600
    """Steps of pretraining."""
    transfer_steps: int = 150
    """Steps of each transfer, the same from random and from pretrained weights."""
