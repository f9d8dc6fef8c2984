"""Nearest-neighbour graphs over embeddings (numpy + faiss): the room of `omnishard mine`."""
