"""What all readers of files raise."""

from __future__ import annotations


class Unusable(Exception):
    """A file, a study or a whole download cannot be used; the message is for people and says why."""
