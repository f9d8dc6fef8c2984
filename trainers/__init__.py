"""Recipes, training, models and evaluation on torch; see `omnishard train --help`."""

import os

# Threads that wait at an OpenMP barrier sleep instead of spinning. The loader's threads and other programs share the cores,
# and a spinning thread takes the core from the one it waits for: measured, a step of 0.2 s then takes 3 s. It must be set
# before torch loads the OpenMP library.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
