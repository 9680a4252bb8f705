"""The arena: memory guards proved on real kernels in small guests.

A *scenario* says what a machine holds, what goes wrong on it, who must die and
who must live. A *run* stages one scenario in a fresh QEMU guest with one guard
installed the way its package installs it, and measures from inside. The
*judge* turns what was seen into pass, fail or lost, with reasons.

Rule: nothing here imports forestall. The arena meets it as it meets its peers,
as an installed service.
"""
