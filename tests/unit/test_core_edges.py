"""Edges of the core that the mutants showed to be unguarded: limits, windows, families."""
