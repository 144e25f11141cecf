"""docs/design/overview.md says what the house is: its table is the test's own, its names exist."""

import re

from tests.imports import FLOORS, ROOT, modules

PAGE = (ROOT / "docs" / "design" / "overview.md").read_text()


def test_the_table_of_rooms_is_the_one_that_imports_are_held_to():
    rows = re.findall(r"^\| ([\w. ]+) \| ((?:`[\w.]+` ?)+)\|", PAGE, flags=re.MULTILINE)
    said = tuple((floor, tuple(re.findall(r"`([\w.]+)`", rooms))) for floor, rooms in rows)
    assert said == FLOORS


def test_every_module_that_the_two_lives_name_exists():
    lives = PAGE[PAGE.index("## The life of a patch") :]
    known = set(modules("radiobject"))
    names = re.findall(r"`([a-z_]+\.[a-z_.]+)(?:\.[A-Z]\w*)?`", lives)
    assert len(names) > 15

    def exists(name):
        module, _, function = f"radiobject.{name}".rpartition(".")
        return f"radiobject.{name}" in known or (
            module in known and f"def {function}(" in modules("radiobject")[module].read_text()
        )

    assert [name for name in names if not exists(name)] == []


def test_each_life_has_ten_steps():
    for title in ("The life of a patch", "The life of a file"):
        life = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
        assert re.findall(r"^(\d+)\. ", life, flags=re.MULTILINE) == [
            str(step) for step in range(1, 11)
        ]


def test_who_comes_new_is_pointed_to_it():
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "(docs/design/overview.md)" in (ROOT / page).read_text()
