"""Stands in for ``guard/start.py``: the same entry, and the modules it holds are listed at its end.

``python -I -S -E guard_roll_call.py START FD LIST``: runs START's own main() on the descriptor,
and when the guard has stopped writes every loaded module, a line each, to LIST. No module is
imported here but those the interpreter has anyway.
"""

import sys

start, fd, roll = sys.argv[1:]
with open(start, encoding="utf-8") as source:  # noqa: PTH123 - pathlib would be on the list
    code = compile(source.read(), start, "exec")
sys.argv = [start, fd]
try:
    exec(code, {"__name__": "__main__", "__file__": start})
finally:
    with open(roll, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write("\n".join(sorted(sys.modules)) + "\n")
