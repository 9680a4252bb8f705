"""The live screen. Needs the optional extra ``tui``; only ``app`` and ``screens`` import it."""
