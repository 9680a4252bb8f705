"""Recorded events through the same ``step`` again. Cannot import what ends a process."""
