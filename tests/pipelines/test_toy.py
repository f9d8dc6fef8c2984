"""The toy world against what is outside of it: decoders, hand logic on the COCO files, and its own bytes made anew."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from pipelines import toy_clips, toy_world
from pipelines.options import Toy
from pipelines.toy import render_chunk, run
from pipelines.toy_captions import NOISE, VOCABULARY
from pipelines.toy_objects import SHAPES, TEXTURES, individual, paint
from pipelines.toy_places import PLACES
from sharding import files
from sharding.errors import InputError

SMALL: dict[str, int] = {
    "seed": 5, "photos": 60, "photo_side": 96, "classes": 4, "train_per_class": 6, "test_per_class": 3, "videos": 8,
    "video_side": 64, "video_frames": 25, "scenes": 14, "scene_side": 128,
}  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "world"
    run(Toy(output=str(folder), **SMALL), [])
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_folder_is_complete_and_its_checksum_holds(toy: Path) -> None:
    found = contents(toy)
    summary = json.loads((toy / "toy.json").read_text())
    del found["toy.json"]
    listing = "".join(f"{path} {digest}\n" for path, digest in sorted(found.items()))
    assert summary["files"] == len(found)
    assert summary["sha256"] == hashlib.sha256(listing.encode()).hexdigest()
    assert summary["options"] == SMALL
    kinds = Counter(path.split("/")[0] for path in found if path.endswith((".jpg", ".mp4", ".png")))
    assert kinds == {"photos": 60, "classes": 4 * 9, "videos": 8, "scenes": 28}
    assert not (toy / ".parts").exists()


def test_any_order_of_chunks_gives_the_same_bytes(toy: Path, tmp_path: Path) -> None:
    """Rendered alone, backwards and in other chunks, every item is the same file."""
    for kind, count in {"photos": 60, "classes": 36, "videos": 8, "scenes": 14}.items():
        for start in range(count - count % 7, -1, -7):
            render_chunk((kind, start, min(start + 7, count)), str(tmp_path), SMALL)
    made = {path: digest for path, digest in contents(tmp_path).items() if not path.startswith(".parts")}
    there = contents(toy)
    assert made == {path: there[path] for path in made}
    assert len(made) == 60 + 36 + 8 + 28


def test_another_seed_is_another_world() -> None:
    assert toy_world.photo(5, 9, 96)[1] == toy_world.photo(5, 9, 96)[1] != toy_world.photo(6, 9, 96)[1]


def test_killed_and_run_again_it_ends_in_the_same_bytes(toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "world"
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    command = [sys.executable, "-m", "pipelines", "toy", "--output", str(folder), *words]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    limit = time.monotonic() + 60
    while not list(folder.glob(".parts/photos-*")) and time.monotonic() < limit:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "toy.json").exists()
    first = folder / ".parts/photos-000000000.json"
    photo = folder / json.loads(first.read_text())["files"][5][0]
    before = os.stat(photo).st_mtime_ns
    run(Toy(output=str(folder), **SMALL), [])
    assert os.stat(photo).st_mtime_ns == before, "a finished chunk is not made again"
    assert contents(folder) == contents(toy)


def test_the_same_again_changes_nothing_and_says_so(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in toy.rglob("*")}
    run(Toy(output=str(toy), **SMALL), [])
    assert "already complete" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in toy.rglob("*")}


def test_what_cannot_work_is_refused_before_anything_is_written(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--photos 60, not 61"):
        run(Toy(output=str(toy), **{**SMALL, "photos": 61}), [])
    files.write_atomic(
        str(tmp_path / "old/.parts/options.json"), json.dumps({"version": "0.0", "options": SMALL}).encode()
    )
    with pytest.raises(InputError, match=r"begun by 0\.0"):
        run(Toy(output=str(tmp_path / "old"), **SMALL), [])
    files.remove(str(tmp_path / "old"))
    with pytest.raises(InputError, match="--classes must be from 0 to 140; found 141"):
        run(Toy(output=str(tmp_path / "new"), classes=141), [])
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"empty or new folder.*mine\.txt"):
        run(Toy(output=str(tmp_path)), [])
    assert contents(tmp_path).keys() == {"mine.txt"}


def test_captions_hold_their_tags_and_the_truth_about_each(toy: Path) -> None:
    captions = [line.split("\t") for line in (toy / "captions.tsv").read_text().splitlines()]
    assert captions[0] == ["image", "text"]
    canonical = {word: tag for tag, words in VOCABULARY.items() for word in words}
    for (name, text), truth in zip(captions[1:], lines(toy / "photos_truth.jsonl"), strict=True):
        assert (toy / "photos" / name).exists()
        assert truth["image"] == name
        assert [word[1:] for word in text.split() if word.startswith("#")] == [tag["tag"] for tag in truth["tags"]]
        shown = {truth["place"], truth["objects"][0]["texture"], *(o["class"] for o in truth["objects"])}
        kinds = {tag["canonical"] for tag in truth["tags"] if tag["kind"] != "noise"}
        assert kinds | set(truth["untagged"]) == shown
        assert not kinds & set(truth["untagged"])
        for tag in truth["tags"]:
            # capital letters do not change what a tag means, but the table keeps each as it was first written
            plain = {word.casefold(): word for word in [*canonical, *NOISE]}[tag["tag"].casefold()]
            if tag["kind"] == "noise":
                assert canonical.get(plain) not in shown
            else:
                assert canonical[plain] == tag["canonical"]
                assert (plain == tag["canonical"]) == (tag["kind"] == "true")


def test_words_of_the_vocabulary_are_never_shared() -> None:
    words = [word.casefold() for words in VOCABULARY.values() for word in words] + [word.casefold() for word in NOISE]
    assert len(words) == len(set(words))
    assert {*SHAPES, *TEXTURES, *PLACES} == set(VOCABULARY)


def test_tags_are_frequent_as_zipf_has_it() -> None:
    """The most frequent of 29 shapes under 1 / rank ** 0.8 takes about 13 % of the photos, the rarest about 1 %."""
    truths = [toy_world.photo(1, index, 40)[3] for index in range(4, 404)]
    main: Counter[str] = Counter(truth["objects"][0]["class"] for truth in truths)  # type: ignore[index]
    weights = 1 / np.arange(1, len(SHAPES) + 1) ** 0.8
    expected = 400 * weights[0] / weights.sum()
    assert abs(main["person"] - expected) < 4 * np.sqrt(expected)
    assert main["person"] > 3 * main["balloon"]


def test_the_first_photos_are_odd_and_the_rest_are_sound(toy: Path) -> None:
    truths = lines(toy / "photos_truth.jsonl")
    assert [t["planted"] for t in truths[:5]] == ["broken", "cmyk", "exif orientation 6", "zero bytes", None]
    broken, cmyk, turned, empty = (toy / "photos" / t["image"] for t in truths[:4])
    with pytest.raises(OSError, match="truncated"):
        Image.open(broken).load()
    assert Image.open(cmyk).mode == "CMYK"
    image = Image.open(turned)
    assert image.getexif()[0x0112] == 6
    assert image.size == (truths[2]["height"], truths[2]["width"])
    assert empty.read_bytes() == b""
    for truth in truths[4:]:
        with Image.open(toy / "photos" / truth["image"]) as image:
            image.load()
            assert image.size == (truth["width"], truth["height"])
        for thing in truth["objects"]:
            x0, y0, x1, y1 = thing["box"]
            assert 0 <= x0 < x1 <= truth["width"]
            assert 0 <= y0 < y1 <= truth["height"]


def test_the_turned_photo_is_upright_once_turned(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Pillow's own exif_transpose, against the photo as it would have been without the plant."""
    from PIL import ImageOps

    truth = lines(toy / "photos_truth.jsonl")[2]
    upright = ImageOps.exif_transpose(Image.open(toy / "photos" / truth["image"])).convert("RGB")
    monkeypatch.setattr(toy_world, "PLANTED", ())
    plain = Image.open(io.BytesIO(toy_world.photo(SMALL["seed"], 2, SMALL["photo_side"])[1]))
    assert np.abs(np.asarray(upright, int) - np.asarray(plain, int)).mean() < 4


def test_classes_are_pairs_and_none_is_told_by_its_mean_colours() -> None:
    pairs = toy_world.class_names(8)
    assert len(set(toy_world.class_names(140))) == 140
    assert max(Counter(shape for _, shape in pairs).values()) == 2
    assert len({texture for texture, _ in pairs}) > 2

    def histogram(data: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
        pixels = np.asarray(Image.open(io.BytesIO(data)).resize((48, 48)), int) // 64
        return np.sqrt(np.bincount((pixels @ [16, 4, 1]).ravel(), minlength=64) / 48**2)

    def features(split: str, count: int) -> list[Any]:
        return [[histogram(toy_world.class_photo(0, split, *p, i, 64)) for i in range(count)] for p in pairs]

    means = np.mean(features("train", 20), axis=1)
    test = np.array(features("test", 10))
    nearest = ((test[:, :, None] - means) ** 2).sum(-1).argmin(-1)
    assert (nearest == np.arange(8)[:, None]).mean() < 0.4  # chance is 0.125


def masks(annotation: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Decodes COCO run lengths by hand: runs of 0 and 1 in turn, down the columns."""
    height, width = annotation["segmentation"]["size"]
    counts = annotation["segmentation"]["counts"]
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def test_coco_masks_boxes_and_areas_agree(toy: Path) -> None:
    coco = json.loads((toy / "scenes/instances.json").read_text())
    images = {image["id"]: image for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert len(images) == 14
    assert list(names.values()) == list(SHAPES)
    covered = {i: np.zeros((image["height"], image["width"]), int) for i, image in images.items()}
    for annotation in coco["annotations"]:
        mask = masks(annotation)
        ys, xs = np.nonzero(mask)
        assert annotation["area"] == mask.sum() > 0
        assert annotation["bbox"] == [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
        assert annotation["category_id"] in names
        covered[annotation["image_id"]] += mask
    assert all(count.max() == 1 for count in covered.values()), "visible masks never overlap"
    assert len({annotation["id"] for annotation in coco["annotations"]}) == len(coco["annotations"])
    for image in images.values():
        assert Image.open(toy / "scenes" / image["file_name"]).size == (image["width"], image["height"])


def test_panoptic_segments_cover_each_pixel_once_and_match_the_instances(toy: Path) -> None:
    panoptic = json.loads((toy / "scenes/panoptic.json").read_text())
    instances = json.loads((toy / "scenes/instances.json").read_text())
    is_thing = {category["id"]: category["isthing"] for category in panoptic["categories"]}
    for annotation in panoptic["annotations"]:
        png = np.asarray(Image.open(toy / "scenes/panoptic" / annotation["file_name"]), int)
        ids = png @ [1, 256, 65536]
        segments = {segment["id"]: segment for segment in annotation["segments_info"]}
        assert set(np.unique(ids).tolist()) == set(segments)
        assert sum(segment["area"] for segment in segments.values()) == ids.size
        for number, segment in segments.items():
            assert (ids == number).sum() == segment["area"]
        things = [s for s in segments.values() if is_thing[s["category_id"]]]
        found = [a for a in instances["annotations"] if a["image_id"] == annotation["image_id"]]
        assert [s["bbox"] for s in things] == [a["bbox"] for a in found]
        for segment, instance in zip(things, found, strict=True):
            assert ((ids == segment["id"]) == masks(instance)).all()


def test_keypoints_lie_on_their_person(toy: Path) -> None:
    coco = json.loads((toy / "scenes/keypoints.json").read_text())
    (category,) = coco["categories"]
    assert len(category["keypoints"]) == 17
    assert {joint for bone in category["skeleton"] for joint in bone} <= set(range(1, 18))
    on_body = total = 0
    for annotation in coco["annotations"]:
        points = np.array(annotation["keypoints"]).reshape(17, 3)
        assert annotation["num_keypoints"] == (points[:, 2] > 0).sum()
        mask = masks(annotation)
        for x, y, visible in points[points[:, 2] > 0]:
            near = mask[max(0, int(y) - 1) : int(y) + 2, max(0, int(x) - 1) : int(x) + 2].any()
            if visible == 2:
                on_body, total = on_body + near, total + 1
    assert total > 50
    assert on_body / total > 0.97


def test_mirrored_persons_keep_their_left_and_right() -> None:
    """Seen from the front, a person's left shoulder is on the right of the picture, mirrored or not."""
    look = individual(np.random.default_rng(0), "person", "plain")
    for mirrored in (False, True):
        joints = paint(look, 50, mirrored=mirrored).joints
        assert joints is not None
        assert joints[5, 0] > joints[6, 0]
        assert joints[11, 0] > joints[12, 0]


@pytest.mark.parametrize("index", range(8))
def test_videos_decode_and_their_boxes_hold_what_moves(toy: Path, index: int) -> None:
    truth = lines(toy / "videos_truth.jsonl")[index]
    with av.open(str(toy / truth["path"])) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        decoded = list(container.decode(video=0))
    assert [i for i, f in enumerate(decoded) if f.key_frame] == [0, 12, 24]
    assert [round(f.time * 24) for f in decoded] == list(range(25))
    frames = np.stack([f.to_ndarray(format="rgb24").astype(int) for f in decoded])
    assert frames.shape == (truth["frames"], truth["height"], truth["width"], 3)
    boxes = truth["tracks"][0]["boxes"]
    assert all(len(track["boxes"]) == len(track["visible"]) == 25 for track in truth["tracks"])
    centre = np.array([((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, np.sqrt((b[2] - b[0]) * (b[3] - b[1]))) for b in boxes])
    change = centre[-1] - centre[0]
    sign = {"left": (0, -1), "right": (0, 1), "rise": (1, -1), "fall": (1, 1), "grow": (2, 1), "shrink": (2, -1)}
    if truth["label"] in sign:
        axis, direction = sign[truth["label"]]
        assert change[axis] * direction > 0.15 * truth["height"]
    # what changes fastest, against a median over time that knows nothing of the boxes, lies inside boxes
    difference = np.abs(np.diff(frames, axis=0)).sum(-1)
    inside = np.zeros(difference.shape, bool)
    for track in truth["tracks"]:
        for f in range(24):
            for box in (track["boxes"][f], track["boxes"][f + 1]):
                if box:
                    inside[f, max(0, box[1] - 2) : box[3] + 2, max(0, box[0] - 2) : box[2] + 2] = True
    assert difference[inside].mean() > 1.5 * difference[~inside].mean()


def test_videos_csv_lists_every_motion_with_its_file(toy: Path) -> None:
    rows = [line.split(",") for line in (toy / "videos.csv").read_text().splitlines()]
    assert rows[0] == ["path", "label"]
    assert [label for _, label in rows[1:]] == list(toy_clips.MOTIONS)
    assert all((toy / path).stat().st_size > 500 for path, _ in rows[1:])


def test_the_encoder_forgets_what_it_did_before() -> None:
    """With its macroblock tree on, x264 gives other bytes for a tenth of these, depending on what memory held before."""
    clips = [
        [np.roll(toy_world.backdrop(np.random.default_rng(k), "forest", 80, 64).rgb * 255, f, 1) for f in range(14)]
        for k in range(4)
    ]
    images = [[frame.astype(np.uint8) for frame in clip] for clip in clips]
    first = [toy_clips.encode_mp4(clip) for clip in images]
    assert all(
        b" mbtree=0 " in data and b" threads=1 " in data for data in first
    )  # x264 notes its settings in the stream
    for _ in range(20):
        for clip, expected in zip(images, first, strict=True):
            copies = [av.VideoFrame.from_ndarray(frame).reformat(format="yuv420p").to_ndarray() for frame in clip]
            assert copies[0].shape == (96, 80)
            assert toy_clips.encode_mp4(clip) == expected


@pytest.mark.parametrize("name", SHAPES)
def test_the_same_individual_is_drawn_at_any_size(name: str) -> None:
    """Twice the size is four times the area: a shape has no part that is measured in pixels."""
    look = individual(np.random.default_rng(3), name, "striped")
    small, large = (paint(look, size) for size in (40.0, 80.0))
    assert large.alpha.sum() / small.alpha.sum() == pytest.approx(4, rel=0.08)
    assert small.rgb.min() >= 0
    assert small.rgb.max() <= 1
