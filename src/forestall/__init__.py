"""forestall: keeps a Linux machine usable when memory runs out.

Rule: importing this package imports nothing else. The guard runs without site
and without the heavy half of the standard library, and an eager import here
would be paid by it too.
"""

__version__ = "0.1.0"
