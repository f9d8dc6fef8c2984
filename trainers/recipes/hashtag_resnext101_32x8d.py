"""ResNeXt-101 32x8d on 940 million hashtagged photos, at paper scale (Mahajan et al. 2018, WSL).

Command: torchrun --nnodes 42 --nproc-per-node 8 -m trainers hashtag_resnext101_32x8d --shards SHARDS --output RUN
Hardware: 336 GPUs on 42 machines, 24 photos each.
Expected: 82.2 top-1 on ImageNet after full fine-tuning (released weights, 1.5k labels). Measured: not yet run.
The paper does not print the number of halvings for every set; 14 lies in its range.
"""

from dataclasses import replace
from functools import partial

from trainers.models.resnet import resnet, resnext101_32x8d
from trainers.pretrain import Pretrain
from trainers.schedules import halvings, warm_up


def recipe() -> Pretrain:
    """Two passes over 940 million photos."""
    return Pretrain(
        shards="shards/hashtags",
        output="runs/hashtag_resnext101_32x8d",
        model=resnext101_32x8d,
        steps=233_135,
        batch_size=8064,
        lr=3.15,  # 0.1 for every 256 photos
        schedule=partial(warm_up, then=partial(halvings, count=14), until=0.05, start=0.1 / 3.15),
        holdout=0.0001,
        lanes=336,
        log_every=100,
        evaluate_every=20_000,
        checkpoint_every=2_000,
        threads=8,
    )


def tiny() -> Pretrain:
    """The same with four narrow blocks."""
    model = partial(resnet, (1, 1, 1, 1), groups=4, width_per_group=8, width=16, stem="small")
    return replace(
        recipe(), model=model, image_size=32, batch_size=8, steps=2, lr=0.01, holdout=0.2, log_every=1, threads=1
    )
