"""The measures: one file per task, pure functions on tensors and a small command over public file formats."""
