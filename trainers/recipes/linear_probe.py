"""Logistic regression on frozen features of the laptop's ResNet-18 (WSL, section 2.3, feature transfer).

Command: omnishard train linear_probe --weights RUN --shards TRAIN --test-shards TEST --output RUN2
  For another network write a file: replace(linear_probe.recipe(), model=resnext101_32x8d, image_size=224).
Hardware: 2 CPU cores, seconds for a thousand photos.
Expected: no paper trains at this size. Measured: top-1 36 % with 5 labels for each of 12 toy classes.
"""

from dataclasses import replace

from trainers.probe import Probe
from trainers.recipes import hashtag_resnet18


def recipe() -> Probe:
    """Features of the centre crop; the penalty is chosen on a fifth of the training samples."""
    return Probe(
        shards="shards/train",
        test_shards="shards/test",
        weights="runs/hashtag_resnet18",
        output="runs/linear_probe",
        model=hashtag_resnet18.recipe().model,
        image_size=64,
    )


def tiny() -> Probe:
    """Two penalties on features of the smallest network."""
    return replace(recipe(), model=hashtag_resnet18.tiny().model, image_size=32, batch_size=16, penalties=(0.01, 0.1))
