"""The rooms of the package stand on floors, and imports run downward only.

Imports inside functions count as well: a lazy import is still a way from one room into
another.
"""

import ast
from pathlib import Path

import pytest

import nbs_utils as nbs

PACKAGE = Path(nbs.__file__).parent
# From the ground up; a room may use those of earlier rows, not those beside it.
FLOORS = [
    {"runtime", "tables"},
    {"zoo"},
    {"augment", "counting", "distributed"},
    {"syncnorm"},
    {"data"},
    {"parity", "figures"},
    {"training"},
    {"results"},
    {"scoring"},
    {"experiments"},
    {"authoring"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports from, its own not among them."""
    package = ("nbs_utils", *path.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "nbs_utils" and len(name) > 1}
    return found - {room_of(path)}


def test_every_room_has_a_floor_and_every_door_says_what_it_is_for():
    rooms = {room_of(path) for path in FILES}
    assert rooms == set(FLOOR_OF)
    for room in rooms:
        door = PACKAGE / room / "__init__.py"
        path = door if door.exists() else PACKAGE / f"{room}.py"
        assert ast.get_docstring(ast.parse(path.read_text())), path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    for room in imported_rooms(path):
        if room.startswith("__"):
            continue  # the version
        assert FLOOR_OF[room] < FLOOR_OF[room_of(path)], f"{path} imports {room}"


def test_no_file_has_the_name_of_a_function_of_the_vocabulary():
    assert not {path.stem for path in FILES} & set(nbs._HOME)
