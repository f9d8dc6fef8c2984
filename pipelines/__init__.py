"""Apache Beam jobs: raw photos, captions and clips in, dataset folders of shards out."""
