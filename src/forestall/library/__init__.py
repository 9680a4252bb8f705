"""What stands behind ``forestall.PressureMonitor``: for programs, not for the guard."""
