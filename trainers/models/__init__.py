"""The networks: one file per family, each a plain function that a recipe passes on (never a name in a table)."""
