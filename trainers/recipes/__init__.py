"""One file per system: `recipe()` at the paper's scale or a laptop's, `tiny()` a copy of seconds on a CPU."""
