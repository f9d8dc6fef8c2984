"""A quarter-width ResNet-18 on hashtags of a few thousand photos, at 64 pixels: the WSL recipe on a laptop.

Command: omnishard train hashtag_resnet18 --shards SHARDS --output RUN
Hardware: 2 CPU cores, about a minute and a half.
Expected: no paper trains at this size. Measured: not yet run.
"""

from dataclasses import replace
from functools import partial

from trainers.models.resnet import resnet, resnet18
from trainers.pretrain import Pretrain
from trainers.schedules import cosine, warm_up


def recipe() -> Pretrain:
    """A few passes; crops keep a third of the photo or more, since 64 pixels show little of a small part."""
    return Pretrain(
        shards="shards/hashtags",
        output="runs/hashtag_resnet18",
        model=partial(resnet18, width=16, stem="small"),
        image_size=64,
        crop_scale=(0.3, 1.0),
        steps=600,
        batch_size=64,
        lr=0.1,
        schedule=partial(warm_up, then=cosine, until=0.1, start=0.1),
        holdout=0.1,
        log_every=20,
        evaluate_every=200,
        checkpoint_every=100,
    )


def tiny() -> Pretrain:
    """Two steps of a network of four blocks."""
    model = partial(resnet, (1, 1, 1, 1), width=16, stem="small")
    return replace(
        recipe(), model=model, image_size=32, batch_size=8, steps=2, lr=0.01, holdout=0.2, log_every=1, threads=1
    )
