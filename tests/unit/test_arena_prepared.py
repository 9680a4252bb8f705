"""An image with a guard installed is found again for the same source, and only for it."""

import pytest

from arena import prepared
from arena.errors import BuildError
from arena.guards import GUARDS
from arena.image import Guest


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "inner").mkdir(parents=True)
    (root / "one.py").write_text("1\n")
    (root / "inner" / "two.py").write_text("2\n")
    return root


def test_the_same_source_has_the_same_name_wherever_it_lies(tree, tmp_path):
    other = tmp_path / "other"
    tree_name = prepared.digest_of({"src": tree}, "make")
    tree.rename(other)

    assert prepared.digest_of({"src": other}, "make") == tree_name


@pytest.mark.parametrize("change", ["content", "name", "command", "more"])
def test_a_change_of_any_kind_is_another_image(tree, change):
    before = prepared.digest_of({"src": tree}, "make")
    command = "make"
    match change:
        case "content":
            (tree / "one.py").write_text("3\n")
        case "name":
            (tree / "one.py").rename(tree / "uno.py")
        case "command":
            command = "make it"
        case "more":
            (tree / "three.py").write_text("")

    assert prepared.digest_of({"src": tree}, command) != before


def test_bytecode_is_no_change(tree):
    before = prepared.digest_of({"src": tree}, "make")
    (tree / "one.pyc").write_bytes(b"compiled")

    assert prepared.digest_of({"src": tree}, "make") == before


def test_an_image_that_is_there_is_not_made_again(tmp_path):
    guest = Guest(name="guest", folder=tmp_path, release="6.1")
    guard = GUARDS["forestall"]
    files = prepared.job.source_files()
    del files[prepared.PAGES]
    name = f"forestall-{prepared.digest_of(files, guard.install)}.ext4"
    (tmp_path / name).touch()

    ready = prepared.ensure(guest, guard, lock=-1)

    assert ready.root_image == tmp_path / name
    assert ready.release == guest.release


@pytest.mark.parametrize(("off", "status"), [(True, ""), (False, "installed"), (True, "1")])
def test_an_installation_that_did_not_end_well_leaves_no_image(tmp_path, off, status):
    """The next run tries again; a half-installed guard is never measured."""
    (tmp_path / "root.ext4").write_bytes(b"plain")
    guest = Guest(name="guest", folder=tmp_path, release="6.1")

    def boots(fresh, hardware, work, *, lock):
        assert hardware.keeps
        assert (work / "job.tar").exists()
        return prepared.machine.Outcome(
            powered_off=off,
            out=b"",
            status=status,
            console="no space left",
            noise=None,
            files=work / "files.tar",
        )

    with pytest.raises(BuildError, match="no space left"):
        prepared.ensure(guest, GUARDS["forestall"], lock=-1, run=boots)

    assert [path.name for path in tmp_path.iterdir()] == ["root.ext4"]


def test_old_images_go_when_a_new_one_is_made(tmp_path):
    (tmp_path / "root.ext4").write_bytes(b"plain")
    guest = Guest(name="guest", folder=tmp_path, release="6.1")
    for age in range(prepared.IMAGES_KEPT + 2):
        (tmp_path / f"forestall-{age:012d}.ext4").touch()

    def boots(fresh, hardware, work, *, lock):
        assert fresh.root_image.read_bytes() == b"plain"
        return prepared.machine.Outcome(
            powered_off=True,
            out=b"",
            status=prepared.INSTALLED,
            console="",
            noise=None,
            files=work / "files.tar",
        )

    ready = prepared.ensure(guest, GUARDS["forestall"], lock=-1, run=boots)

    assert ready.root_image.read_bytes() == b"plain"
    assert len(list(tmp_path.glob("forestall-*"))) == prepared.IMAGES_KEPT
