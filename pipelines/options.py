"""What each job can be asked: one frozen dataclass per job is its options, their types, defaults and help at once.

Nothing heavy is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Photos:
    """What every job that stores photos asks about them and about the shards."""

    images: str
    """Folder of the photos, local or any fsspec URL. A photo's source id is its path below this folder."""
    output: str
    """Dataset folder to write. The same command again changes nothing, or goes on where it was interrupted."""
    short_side: int = 256
    """Photos are shrunk until the shorter side has this many pixels; smaller ones keep their size."""
    quality: int = 90
    """JPEG quality of the stored photos, 1 to 95."""
    shards: int | None = None
    """Number of shards. Without it: as many as --samples-per-shard asks for."""
    samples_per_shard: int = 1000
    """Records per shard, about, when --shards is not given."""
    max_reject_share: float | None = None
    """Largest share of damaged records (0 to 1) with which the job still succeeds. Without it: 0.01, and always 10 records."""
    max_pixels: int = 100_000_000
    """Photos of more pixels are rejected by their header, without being decoded."""
    max_bytes: int = 100_000_000
    """Larger files are rejected."""
    threads: int | None = None
    """Photos decoded at once in each worker process. Without it: one per core."""


@dataclass(frozen=True, kw_only=True)
class Hashtags(Photos):
    """Tagged photos: a folder and a table of captions become shards with the label ids of their hashtags.

    omnishard build hashtags --images photos --captions captions.tsv --output shards/tagged

    Each sample holds jpg, json (source, sizes, text) and tags.json (label ids). Options not listed here go to Beam:
    --runner=FlinkRunner, or --direct_running_mode=multi_processing --direct_num_workers=8 for many processes.
    """

    captions: str
    """Table of captions: .tsv, .csv, .jsonl (each also .gz) or .parquet; a file, a pattern such as 'part-*.tsv', or several
    with commas between. Rows of one image are merged."""
    image_column: str = "image"
    """Column with the path of the photo below --images."""
    text_column: str | None = None
    """Column with the caption. Without it: `text` or `caption`, when there is one."""
    hashtags_column: str | None = None
    """Column with a list of tags, or tags with spaces or commas between. Without it: `hashtags`, when there is one."""
    tags_from_words: bool = False
    """Take the plain words of captions as tags too (stop words left out; a plural counts as its singular when both occur)."""
    min_count: int = 5
    """A tag becomes a label when at least this many photos carry it."""
    max_labels: int | None = None
    """Keep only this many of the most frequent labels."""
    vocabulary: str | None = None
    """Take the labels from this file instead: a vocabulary.tsv, or lines of a tag with its synonyms after it."""


@dataclass(frozen=True, kw_only=True)
class Classes(Photos):
    """Classified photos: one folder per class, or a list file, become shards with one class id per photo.

    omnishard build classes --images photos/train --output shards/train

    Each sample holds jpg, json (source, sizes) and cls (class id). A test set takes the ids of its training set:
    --images photos/test --vocabulary shards/train/vocabulary.tsv. Options not listed here go to Beam.
    """

    list: str | None = None
    """Table of images and labels (.tsv, .csv, .jsonl, .parquet) instead of one folder per class."""
    image_column: str = "image"
    """Column of --list with the path of the photo below --images."""
    label_column: str = "label"
    """Column of --list with the class name."""
    vocabulary: str | None = None
    """Take classes and their ids from this vocabulary.tsv, or from a file with one class name a line."""


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Raw data for people without any: rendered photos with hashtags, class folders, videos and COCO scenes, with truth.

    omnishard build toy --output toy

    Works offline. The same seed and sizes give the same bytes. Below the output folder: photos/ + captions.tsv (for
    omnishard build hashtags), classes/train and classes/test (for omnishard build classes), videos/ + videos.csv,
    scenes/ in COCO format, and files named *truth* with what is really there. Options not listed here go to Beam:
    --direct_running_mode=multi_processing --direct_num_workers=8 for many processes.
    """

    output: str
    """Folder to write. The same command again changes nothing, or goes on where it was interrupted."""
    seed: int = 0
    """Another seed is another world of the same kind."""
    photos: int = 3000
    """Captioned photos. The first four are a cut file, a CMYK file, one turned by EXIF, and an empty file."""
    photo_side: int = 160
    """Short side of photos and class photos, about, in pixels; real ones vary by a quarter, and so do these."""
    classes: int = 12
    """Transfer classes, each a texture on a shape (striped_cat, checkered_cat, ...); at most 140."""
    train_per_class: int = 30
    """Photos of each class below classes/train."""
    test_per_class: int = 25
    """Photos of each class below classes/test."""
    videos: int = 48
    """Videos of one to three moving objects; the label is the motion (left, right, rise, fall, grow, shrink, spin, bounce)."""
    video_side: int = 128
    """Height of the videos in pixels; they are 4:3."""
    video_frames: int = 72
    """Frames of a video, at 24 a second."""
    scenes: int = 60
    """Scenes with boxes, masks, keypoints of persons, and panoptic segments in COCO format."""
    scene_side: int = 224
    """Short side of the scenes, about, in pixels."""
