"""CHANGE: the only package that changes the outside world. Nothing here may be slow."""
