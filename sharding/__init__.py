"""Datasets as folders of webdataset shards: how they are written, indexed, ordered and read."""

__version__ = "0.1.0"
