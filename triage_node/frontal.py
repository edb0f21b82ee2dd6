"""Where on the overview image the frontal projection lies, for who draws it and for who shows it alone."""

from __future__ import annotations

# In pixels of the overview, which is a square of SIZE.
SIZE = 1024
LEFT, TOP, WIDTH, HEIGHT = 20, 76, 652, 640
