"""Who may import whom: the table of DESIGN, held against every import statement.

Direct imports only, and those for type checkers count too: a type is a
dependency of the reader. A name that is not in the table has no room yet.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "forestall"
MODULES = sorted(SRC.rglob("*.py"))

# From the bottom up; who stands in one row does not import each other.
LAYERS = (
    {"core"},
    {"fields"},
    {"kernel"},
    {"effects"},
    {"recorder", "config", "forensics"},
    {"inspect", "control"},
    {"guard", "relief", "herald", "admin", "replay", "report"},
    {"library"},
    {"tui", "monitor"},
    {"cli"},
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SIBLINGS = {
    ("guard", "relief"): "relief is forked from the guard before anything is short",
}
# A replay that cannot import the kill cannot kill.
HARMLESS = {"replay", "report", "tui", "forensics"}
HARMFUL = {"effects", "admin"}

HOT_PATH = {"core", "kernel", "effects", "guard", "recorder", "control", "relief"}
CORE_STANDARD_LIBRARY = {"__future__", "bisect", "collections", "enum", "itertools", "math", "re"}
HOT_STANDARD_LIBRARY = CORE_STANDARD_LIBRARY | {
    "array",
    "binascii",
    "ctypes",
    "errno",
    "fcntl",
    "functools",
    "gc",
    "json",
    "marshal",
    "mmap",
    "os",
    "re",
    "resource",
    "select",
    "signal",
    "socket",
    "stat",
    "struct",
    "sys",
    "time",
    "zlib",
}
# Each weighs one MiB or more in the guard, or can block, or both.
NEVER_IN_THE_GUARD = {
    "argparse",
    "asyncio",
    "click",
    "dataclasses",
    "http",
    "inspect",
    "logging",
    "pathlib",
    "rich",
    "subprocess",
    "tomllib",
    "typing",
    "unittest",
    "urllib",
}


def name_of(module):
    return str(module.relative_to(SRC))


def package_of(module):
    """The room a module is in: the folder, or the name of a module at the top."""
    return module.relative_to(SRC).parts[0].removesuffix(".py")


@cache
def tree_of(module):
    return ast.parse(module.read_text())


def imports_of(module, *, with_types):
    """Names imported anywhere in a module, as (root, room below forestall or nothing)."""
    tree = tree_of(module)
    skipped = set() if with_types else set(map(id, type_only_nodes(tree)))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(module)}: write the import in full"
            names = [node.module or ""]
            if node.module == "forestall":
                names = [f"forestall.{alias.name}" for alias in node.names]
        for name in names:
            root, _, rest = name.partition(".")
            yield root, rest.partition(".")[0] if root == "forestall" else ""


def type_only_nodes(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for inner in node.body:
                yield from ast.walk(inner)


def rooms_imported(module):
    """Other rooms, without what the top package itself holds (its version)."""
    own = package_of(module)
    rooms = {room for root, room in imports_of(module, with_types=True) if root == "forestall"}
    return {room for room in rooms if room and room != own and not room.startswith("__")}


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_imports_go_down_the_house_and_never_sideways_or_up(module):
    own = package_of(module)
    if own == "__init__":
        # The library's names are fetched when somebody asks for them, and not before.
        assert rooms_imported(module) <= {"monitor"}
        return
    assert own in RANKS, f"{own} has no place in LAYERS"
    wrong = [
        room
        for room in rooms_imported(module)
        if RANKS.get(room, 99) >= RANKS[own] and (own, room) not in SIBLINGS
    ]

    assert wrong == []


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_who_only_looks_cannot_import_what_acts(module):
    if package_of(module) in HARMLESS:
        assert rooms_imported(module) & HARMFUL == set()


@pytest.mark.parametrize(
    "module", [one for one in MODULES if package_of(one) == "core"], ids=name_of
)
def test_the_core_imports_nothing_that_touches_the_world(module):
    """An allow-list: a new import into the core is a decision, not a habit."""
    roots = {root for root, _room in imports_of(module, with_types=False)} - {"forestall"}

    assert roots <= CORE_STANDARD_LIBRARY


@pytest.mark.parametrize(
    "module", [one for one in MODULES if package_of(one) in HOT_PATH], ids=name_of
)
def test_the_hot_path_imports_only_what_was_weighed(module):
    roots = {root for root, _room in imports_of(module, with_types=False)} - {"forestall"}

    assert roots <= HOT_STANDARD_LIBRARY


def test_the_guards_process_holds_none_of_the_heavy_modules():
    """Asked of the process itself: what the allowed modules pull in counts as well."""
    if not (SRC / "guard/daemon.py").exists():
        pytest.skip("there is no guard in this tree")
    code = (
        f"import sys; sys.path.insert(0, {str(SRC.parent)!r}); import forestall.guard.daemon;"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-E", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    roots = {name.partition(".")[0] for name in done.stdout.split()}

    assert roots & NEVER_IN_THE_GUARD == set()
    rooms = {name.split(".")[1] for name in done.stdout.split() if name.startswith("forestall.")}
    assert rooms <= HOT_PATH


def test_the_top_package_imports_nothing():
    tree = ast.parse((SRC / "__init__.py").read_text())
    at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]

    assert at_import == []
