"""What a value is: frozen, equal only to its own kind, always true, and cheap."""

import pytest

from forestall.core.events import Gone, Survey
from forestall.core.model import Memory, ProcessId
from forestall.core.state import Calm, Choosing
from forestall.core.value import fields_of, replace, value


@value
class Point:
    x: int
    y: int = 5

    @property
    def sum(self) -> int:
        return self.x + self.y


@value
class Pair:
    x: int
    y: int


@value
class Outer:
    inner: object


def test_values_of_different_classes_are_never_equal():
    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Pair(1, 2)
    assert not Point(1, 2) == Pair(1, 2)  # noqa: SIM201 - both operators are ours
    assert not Point(1, 2) != Point(1, 2)  # noqa: SIM202


def test_a_value_is_no_bare_tuple_from_either_side():
    assert Point(1, 2) != (1, 2)
    assert Point(1, 2) != (1, 2)


def test_values_inside_values_are_compared_by_class_too():
    assert Outer(Point(1, 2)) == Outer(Point(1, 2))
    assert Outer(Point(1, 2)) != Outer(Pair(1, 2))
    assert Outer((Point(1, 2),)) != Outer((Pair(1, 2),))


def test_a_value_without_fields_is_true_and_not_equal_to_another_one():
    assert Calm()
    assert Calm() == Calm()
    assert Calm() != Survey()
    assert bool(Point(0, 0))


def test_a_value_keeps_its_place_in_sets_and_dicts():
    seen = {ProcessId(7, 1): "a"}

    assert seen[ProcessId(7, 1)] == "a"
    assert ProcessId(7, 2) not in seen
    assert Pair(7, 1) not in seen


def test_a_value_cannot_be_changed():
    with pytest.raises(AttributeError):
        Point(1).x = 2
    with pytest.raises(AttributeError):
        Point(1).z = 2


def test_defaults_properties_and_keywords_work_as_one_expects():
    assert Point(1) == Point(x=1, y=5)
    assert Point(1).sum == 6
    assert fields_of(Point) == ("x", "y")
    with pytest.raises(TypeError):
        Point()
    with pytest.raises(TypeError):
        Point(1, 2, 3)


def test_replace_changes_a_copy_and_refuses_what_is_no_field():
    before = Point(1, 2)

    assert replace(before, y=3) == Point(1, 3)
    assert before == Point(1, 2)
    with pytest.raises((ValueError, TypeError)):
        replace(before, z=1)


def test_values_match_by_position_and_by_class():
    def read(event):
        match event:
            case Gone(now_ns, ProcessId(pid, _)):
                return now_ns, pid
            case Choosing(trigger=name):
                return name
        return None

    assert read(Gone(3, ProcessId(7, 1))) == (3, 7)
    assert read(Gone(3, Pair(7, 1))) is None
    assert read(Choosing("low", None, 0)) == "low"


def test_measured_memory_reads_as_shares():
    memory = Memory(1000, 250, 400, 100, 60)

    assert (memory.available_share, memory.used_share) == (0.25, 0.75)
    assert memory.swap_used_bytes == 300
