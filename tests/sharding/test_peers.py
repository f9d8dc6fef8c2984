"""The plain webdataset library and DALI's reader agree with ours on keys, bytes and count."""

from __future__ import annotations

import os

os.environ.setdefault("WDS_SECURE", "1")

import numpy as np
import pytest

from sharding.files import join
from sharding.manifest import read_manifest
from sharding.tar import read_shard


def ours(folder: str) -> dict[str, dict[str, bytes]]:
    names = [shard.name for shard in read_manifest(folder).shards]
    return {sample.key: sample.members for name in names for sample in read_shard(join(folder, name))}


def test_webdataset_reads_the_shards(class_shards: str, tag_shards: str) -> None:
    from webdataset import WebDataset

    for folder in (class_shards, tag_shards):
        urls = [join(folder, shard.name) for shard in read_manifest(folder).shards]
        theirs = {}
        for sample in WebDataset(urls, shardshuffle=False, empty_check=False):
            theirs[sample["__key__"]] = {k: v for k, v in sample.items() if not k.startswith("__")}
        assert theirs == ours(folder)
        assert len(theirs) == read_manifest(folder).kept == 96


@pytest.mark.parametrize("with_index", [True, False])
def test_dali_reads_the_shards(class_shards: str, with_index: bool) -> None:
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    shards = [join(class_shards, shard.name) for shard in read_manifest(class_shards).shards]
    index = {"index_paths": [s.replace(".tar", ".idx") for s in shards]} if with_index else {}

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def read():  # type: ignore[no-untyped-def]
        return tuple(fn.readers.webdataset(paths=shards, ext=["jpg", "json", "cls"], name="reader", **index))

    pipe = read()
    pipe.build()
    count = sum(pipe.reader_meta("reader")["epoch_size"] for _ in (1,))
    theirs = []
    for _ in range(count):
        theirs.append(tuple(np.asarray(output.at(0)).tobytes() for output in pipe.run()))
    mine = [(m["jpg"], m["json"], m["cls"]) for m in ours(class_shards).values()]
    assert count == 96
    assert theirs == mine
