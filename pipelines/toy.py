"""`omnishard build toy`: writes the toy world as raw files, as a person's own photos, videos and tables would lie there.

Every later system gets data with known answers from it. An item is a pure function of (seed, kind, index), so Beam may
render chunks of items anywhere, in any order, again after a crash. A chunk leaves its rows of the tables in .parts/ when
its files are there; the tables are put together from these rows, and toy.json comes last.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import apache_beam as beam

from pipelines import toy_clips, toy_world
from pipelines.launch import check_folder
from pipelines.options import Toy
from pipelines.runner import beam_options, run_pipeline, watched
from pipelines.toy_captions import VOCABULARY
from sharding import __version__, files
from sharding.errors import InputError
from sharding.progress import Progress

CHUNK = 24  # items per unit of work: a fraction of a second to seconds
KINDS = ("photos", "classes", "videos", "scenes")
MOST_CLASSES = 140  # all shapes but person x the five textures with a clear pattern
Chunk = tuple[str, int, int]  # kind, first item, end


def run(options: Toy, beam_arguments: list[str]) -> None:
    """Build the toy world, go on with an interrupted one, or say that it is complete.

    Raises:
        InputError: for impossible sizes, or a folder that holds something else.
    """
    settings = _settings(options)
    _check(settings)
    beam_settings = beam_options(beam_arguments, Toy)
    if _is_complete(options.output, settings):
        files.remove(files.join(options.output, ".parts"))
        print(f"already complete: {options.output} holds this toy world; nothing to do")
        return
    begun = {"version": __version__, "options": settings}
    files.write_atomic(files.join(options.output, ".parts", "options.json"), _json(begun))
    wanted = list(chunks(settings))
    finished = set(_parts(options.output))
    todo = [chunk for chunk in wanted if _part(chunk) not in finished]

    size = {_part((kind, start, stop)): stop - start for kind, start, stop in wanted}
    with (
        Progress("toy world", sum(size.values()), "items") as progress,
        watched(lambda: progress.update(sum(size[part] for part in _parts(options.output)))),
    ):
        if todo:
            run_pipeline(
                lambda p: p | beam.Create(todo) | beam.Reshuffle() | RenderToys(options.output, settings),
                beam_settings,
            )
    print(_assemble(options.output, settings, wanted))


class RenderToys(beam.PTransform):  # type: ignore[misc]
    """Renders chunks of items and writes their files; yields how many items there were."""

    def __init__(self, output: str, settings: dict[str, int]) -> None:
        super().__init__()
        self.output, self.settings = output, settings

    def expand(self, chunk: beam.PCollection[Chunk]) -> beam.PCollection[int]:
        return chunk | "Render" >> beam.Map(render_chunk, output=self.output, settings=self.settings)


def chunks(settings: dict[str, int]) -> Iterator[Chunk]:
    """All the work, in units of CHUNK items."""
    counts = {
        "photos": settings["photos"],
        "classes": settings["classes"] * (settings["train_per_class"] + settings["test_per_class"]),
        "videos": settings["videos"],
        "scenes": settings["scenes"],
    }
    for kind in KINDS:
        for start in range(0, counts[kind], CHUNK):
            yield kind, start, min(start + CHUNK, counts[kind])


def render_chunk(chunk: Chunk, output: str, settings: dict[str, int]) -> int:
    """Render and write the items of a chunk, then its part: the rows of the tables, and a checksum per file."""
    kind, start, stop = chunk

    def one(index: int) -> tuple[dict[str, Any], list[tuple[str, str, int]]]:
        row, made = render(settings, kind, index)
        for path, data in made.items():
            files.write_atomic(files.join(output, path), data)
        return row, [(path, hashlib.sha256(data).hexdigest(), len(data)) for path, data in made.items()]

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow, numpy, x264 and the disk let other threads run
        done = list(pool.map(one, range(start, stop)))
    part = {"rows": [row for row, _ in done], "files": [line for _, lines in done for line in lines]}
    files.write_atomic(files.join(output, ".parts", _part(chunk)), _json(part))
    return stop - start


def render(settings: dict[str, int], kind: str, index: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """One item: its row for the tables of its kind, and its files by path below the output folder."""
    seed = settings["seed"]
    if kind == "photos":
        name, data, caption, truth = toy_world.photo(seed, index, settings["photo_side"])
        return {"image": name, "text": caption, "truth": truth}, {f"photos/{name}": data}
    if kind == "classes":
        train, test = settings["train_per_class"], settings["test_per_class"]
        which, number = divmod(index, train + test)
        texture, shape = toy_world.class_names(settings["classes"])[which]
        split, number = ("train", number) if number < train else ("test", number - train)
        data = toy_world.class_photo(seed, split, texture, shape, number, settings["photo_side"])
        return {}, {f"classes/{split}/{texture}_{shape}/{number:04d}.jpg": data}
    if kind == "videos":
        label, data, truth = toy_clips.clip(seed, index, settings["video_side"], settings["video_frames"])
        path = f"videos/{index:06d}.mp4"
        return {"path": path, "label": label, "truth": {"path": path, **truth}}, {path: data}
    jpeg, png, coco = toy_world.scene(seed, index, settings["scene_side"])
    return coco, {f"scenes/{index:06d}.jpg": jpeg, f"scenes/panoptic/{index:06d}.png": png}


def _assemble(output: str, settings: dict[str, int], wanted: list[Chunk]) -> str:
    """Write the tables from all parts, toy.json last; returns a summary for the reader."""
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    written: list[tuple[str, str, int]] = []
    for chunk in wanted:
        part = json.loads(files.read_bytes(files.join(output, ".parts", _part(chunk))))
        rows[chunk[0]] += part["rows"]
        written += part["files"]

    photos, videos = rows["photos"], rows["videos"]
    tables = {
        "captions.tsv": _lines(["image\ttext", *(f"{row['image']}\t{row['text']}" for row in photos)]),
        "photos_truth.jsonl": b"".join(_json(row["truth"]) for row in photos),
        "vocabulary_truth.tsv": _lines([f"{tag}\t{' '.join(words[1:])}" for tag, words in VOCABULARY.items()]),
        "videos.csv": _lines(["path,label", *(f"{row['path']},{row['label']}" for row in videos)]),
        "videos_truth.jsonl": b"".join(_json(row["truth"]) for row in videos),
        **_coco_tables(rows["scenes"]),
        "PROVENANCE.md": _provenance(settings),
    }
    for path, data in tables.items():
        files.write_atomic(files.join(output, path), data)
        written.append((path, hashlib.sha256(data).hexdigest(), len(data)))

    listing = _lines(sorted(f"{path} {digest}" for path, digest, _ in written))
    summary = {
        "format": 1, "version": __version__, "options": settings, "files": len(written),
        "bytes": sum(size for *_, size in written), "sha256": hashlib.sha256(listing).hexdigest(),
    }  # fmt: skip
    files.write_atomic(files.join(output, "toy.json"), _json(summary))
    for name in files.list_files(output, hidden=True):
        if files.TEMPORARY in name:  # what a crash left behind
            files.remove(files.join(output, name))
    files.remove(files.join(output, ".parts"))
    pictures = settings["classes"] * (settings["train_per_class"] + settings["test_per_class"])
    return (
        f"{output}: {len(photos)} photos with captions, {pictures} photos of {settings['classes']} classes, {len(videos)} "
        f"videos, {len(rows['scenes'])} scenes; {summary['files']} files, {sum(s for *_, s in written) / 1e6:.1f} MB"
    )


def _coco_tables(scenes: list[dict[str, Any]]) -> dict[str, bytes]:
    """COCO instances, person keypoints and panoptic files of the scenes."""
    categories = toy_world.categories()
    info = {"description": "omnishard toy scenes (synthetic)", "version": __version__}
    images = [image for scene in scenes for image in scene["images"]]
    annotations = [a for scene in scenes for a in scene["annotations"]]
    numbered = [{"id": number, **a} for number, a in enumerate(annotations, 1)]
    plain = [{k: v for k, v in a.items() if "keypoints" not in k} for a in numbered]
    persons = [a for a in numbered if "keypoints" in a]
    panoptic = [
        {
            "image_id": image["id"],
            "file_name": image["file_name"].replace(".jpg", ".png"),
            "segments_info": scene["segments"],
        }
        for scene in scenes
        for image in scene["images"]
    ]
    bare = [{k: c[k] for k in ("id", "name", "supercategory", "isthing")} for c in categories]
    things = [{k: v for k, v in c.items() if k != "isthing"} for c in bare if c["isthing"]]
    posed = [{k: v for k, v in c.items() if k != "isthing"} for c in categories if "keypoints" in c]
    common = {"info": info, "licenses": [], "images": images}
    return {
        "scenes/instances.json": _json({**common, "annotations": plain, "categories": things}),
        "scenes/keypoints.json": _json({**common, "annotations": persons, "categories": posed}),
        "scenes/panoptic.json": _json({**common, "annotations": panoptic, "categories": bare}),
    }


def _provenance(settings: dict[str, int]) -> bytes:
    planted = "; ".join(f"photo {i}: {what}" for i, what in enumerate(toy_world.PLANTED[: settings["photos"]]))
    return _lines(
        [
            "# Where these files come from",
            "",
            f"All of it is synthetic, drawn by `omnishard build toy` (omnishard {__version__}); no photo or video of the real",
            "world was used. The same options give the same bytes with the same versions of numpy, Pillow and PyAV.",
            "",
            *(f"- {name}: {value}" for name, value in settings.items()),
            "",
            f"Planted among the photos, each with a caption like any other: {planted or 'nothing'}.",
            "",
            "- captions.tsv: image (below photos/), text. photos_truth.jsonl: objects with boxes (x0, y0, x1, y1; of the upright",
            "  photo), each tag as true, synonym or noise, the true tags left out (untagged), and what was planted.",
            "- vocabulary_truth.tsv: each tag with its synonyms, no header (build hashtags --vocabulary takes it).",
            "- classes/train, classes/test: one folder per class, a texture on a shape; colours and places say nothing about it.",
            "- videos.csv: path, label; the label is a motion. videos_truth.jsonl: per track its class, individual (the same one",
            "  comes back in other videos), and per frame its box and the share of it that is visible.",
            "- scenes/: instances.json, keypoints.json, panoptic.json with panoptic/*.png, all in COCO format.",
        ]
    )


# ---- what is in the folder already


def _settings(options: Toy) -> dict[str, int]:
    """The options that the bytes depend on."""
    return {name: value for name, value in asdict(options).items() if name != "output"}


def _check(settings: dict[str, int]) -> None:
    for name, value in settings.items():
        option = "--" + name.replace("_", "-")
        least = {"photo_side": 32, "video_side": 32, "scene_side": 32, "video_frames": 2}.get(name, 0)
        most = {"classes": MOST_CLASSES, "photo_side": 2048, "video_side": 1080, "scene_side": 2048}.get(
            name, 10_000_000
        )
        if not least <= value <= most and name != "seed":
            raise InputError(f"{option} must be from {least} to {most}; found {value}.")


def _is_complete(output: str, settings: dict[str, int]) -> bool:
    """True when the folder holds just this world; False when it is free for it, or holds an unfinished part of it."""
    check_folder(output)
    here = files.list_files(output, hidden=True) if files.exists(output) else []
    mark = next((name for name in ("toy.json", ".parts/options.json") if name in here), None)
    if mark is None:
        if any(files.TEMPORARY not in name for name in here):
            raise InputError(
                f"--output must be an empty or new folder; {output} holds {len(here)} files such as {here[0]}."
            )
        return False
    found = json.loads(files.read_bytes(files.join(output, mark)))
    if mark != "toy.json" and found["version"] != __version__:
        raise InputError(
            f"an unfinished toy world must go on with the version it began with; {output} was begun by {found['version']}, "
            f"this is {__version__}: give another --output."
        )
    for name, value in settings.items():
        if found["options"].get(name) != value:
            raise InputError(
                f"{output} holds a toy world of --{name.replace('_', '-')} {found['options'].get(name)}, not {value}: "
                "give the same options, or another --output."
            )
    return mark == "toy.json"


def _part(chunk: Chunk) -> str:
    return f"{chunk[0]}-{chunk[1]:09d}.json"


def _parts(output: str) -> list[str]:
    return [name for name in files.list_files(files.join(output, ".parts")) if name != "options.json"]


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()
