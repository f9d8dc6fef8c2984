"""Torch training on shards: recipes over regimes over one loop. Nothing here is imported by the Beam jobs."""
