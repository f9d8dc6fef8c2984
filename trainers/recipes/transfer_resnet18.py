"""Full fine-tuning of the laptop's ResNet-18 on a few labels of each class, after hashtags (WSL, section 2.3).

Command: omnishard train transfer_resnet18 --weights RUN --shards TRAIN --test-shards TEST --output RUN2
  (--weights "" trains the same network from scratch, to compare with)
Hardware: 2 CPU cores, under a minute.
Expected: no paper trains at this size. Measured: top-1 36 % with 5 labels for each of 12 toy classes, from scratch 20 %.
"""

from dataclasses import replace
from functools import partial

from trainers.recipes import hashtag_resnet18
from trainers.schedules import cosine, warm_up
from trainers.transfer import Transfer


def recipe() -> Transfer:
    """Some hundred steps, since there are few labels."""
    return Transfer(
        shards="shards/train",
        test_shards="shards/test",
        weights="runs/hashtag_resnet18",
        output="runs/transfer_resnet18",
        model=hashtag_resnet18.recipe().model,
        image_size=64,
        crop_scale=(0.5, 1.0),
        labels_per_class=20,
        steps=200,
        batch_size=64,
        lr=0.05,
        schedule=partial(warm_up, then=cosine, until=0.1, start=0.1),
        log_every=20,
        weight_decay=5e-4,
        checkpoint_every=50,
    )


def tiny() -> Transfer:
    """Two steps from scratch."""
    small = hashtag_resnet18.tiny()
    return replace(
        recipe(), weights="", model=small.model, image_size=32, batch_size=8, steps=2, labels_per_class=4, log_every=1
    )
