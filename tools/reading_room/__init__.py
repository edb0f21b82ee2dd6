"""Chance for `triage_node.reading_room`: who comes, what the model says of them, and what became of their waiting."""
