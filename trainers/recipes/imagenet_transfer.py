"""Full fine-tuning of ResNeXt-101 32x8d on ImageNet-1k after hashtags (Mahajan et al. 2018, WSL, section 2.3).

Command: torchrun --nnodes 4 --nproc-per-node 8 -m trainers imagenet_transfer --weights RUN --shards TRAIN --test-shards VAL
Hardware: 32 GPUs, 32 photos each.
Expected: 82.2 top-1, 96.4 top-5. Measured: not yet run.
The paper chooses learning rate and schedule on a held-out part of the training set and does not print them; these are ours
to start from. Choose with --holdout, then train on all of it.
"""

from dataclasses import replace
from functools import partial

from trainers.models.resnet import resnet, resnext101_32x8d
from trainers.schedules import step_decay, warm_up
from trainers.transfer import Transfer


def recipe() -> Transfer:
    """Thirty passes over 1,281,167 photos."""
    return Transfer(
        shards="shards/imagenet-train",
        test_shards="shards/imagenet-val",
        weights="runs/hashtag_resnext101_32x8d",
        output="runs/imagenet_transfer",
        model=resnext101_32x8d,
        steps=37_534,
        batch_size=1024,
        lr=0.04,
        schedule=partial(warm_up, then=partial(step_decay, at=(1 / 3, 2 / 3)), until=0.02, start=0.1),
        log_every=100,
        evaluate_every=6_000,
        checkpoint_every=1_000,
        threads=8,
    )


def tiny() -> Transfer:
    """The same with four narrow blocks, from scratch."""
    model = partial(resnet, (1, 1, 1, 1), groups=4, width_per_group=8, width=16, stem="small")
    return replace(
        recipe(), weights="", model=model, image_size=32, batch_size=8, steps=2, lr=0.01, log_every=1, threads=1
    )
