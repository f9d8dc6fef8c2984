"""The whole way by one command on a person's own photos, interrupted in the middle, then the same command again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import LABELS, draw_photo

from sharding.manifest import read_manifest


def photos(folder: Path, count: int, seed: int) -> None:
    for i in range(count):
        path = folder / LABELS[i % 4] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_photo(i % 4, seed + i))


def test_own_photos_to_index_page(tmp_path: Path) -> None:
    photos(tmp_path / "train", 24, 0)
    photos(tmp_path / "test", 24, 100)
    photos(tmp_path / "tagged", 64, 200)
    (tmp_path / "tagged/broken.jpg").write_bytes(draw_photo(0, 1)[:900])
    rows = [f"{LABELS[i % 4]}/{i}.jpg\tlook #{LABELS[i % 4].upper()} #photo" for i in range(64)]
    (tmp_path / "captions.tsv").write_text("\n".join(["image\ttext", *rows, "broken.jpg\t#circle"]) + "\n")
    words = ["demo", "--output", "out", "--images", "tagged", "--captions", "captions.tsv", "--train-classes", "train"]
    words += ["--test-classes", "test", "--seeds", "2", "--steps", "3", "--transfer-steps", "2"]
    command = [sys.executable, "-m", "omnishard", *words]

    first = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out/claim/pretrain/run.json").exists() and first.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)  # as a terminal's Ctrl-C does: to every process of the job
    assert first.communicate()[1].rstrip().endswith("the same command goes on from here")
    assert first.returncode == 130
    assert not (tmp_path / "out/index.html").exists()
    built = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/shards").rglob("*.tar")}

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert built == {path: path.stat().st_mtime_ns for path in (tmp_path / "out/shards").rglob("*.tar")}
    assert len(built) == 3
    manifest = read_manifest(str(tmp_path / "out/shards/tagged"))
    assert (manifest.read, manifest.kept, manifest.rejected) == (65, 64, {"truncated": 1})
    page = (tmp_path / "out/index.html").read_text()
    links = re.findall(r'<a href="([^"]+)"', page)
    assert len(links) == 5
    assert all((tmp_path / "out" / link).exists() for link in links)
    assert json.loads((tmp_path / "out/claim/result.json").read_text())["verdict"] in ("shown", "not shown", "opposite")
