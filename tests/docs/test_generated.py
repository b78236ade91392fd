"""Generated pages and pictures are those of the present code, and say what the text beside says."""

import json

import pytest
from PIL import Image

from docs.generate import commands, signs
from pyptyx.cli.registry import COMMANDS
from tests.docs.scenes import ROOT

DOCS = ROOT / "docs"
AGAIN = "run python -m docs.generate"


def test_the_page_of_commands_is_up_to_date():
    page = (DOCS / "reference/commands.md").read_text(encoding="utf-8")
    assert page == commands.markdown(), AGAIN
    assert all(f"\n## {command.name}\n" in page for command in COMMANDS)


@pytest.fixture(scope="module")
def facts():
    return {name: draw()[1] for name, draw in signs.SIGNS.items()}


@pytest.mark.parametrize("name", signs.SIGNS)
def test_pictures_show_what_the_code_does(name, facts):
    with Image.open(DOCS / f"pictures/sign_{name}.png") as picture:
        drawn = json.loads(picture.text["Description"])
    assert drawn == pytest.approx(facts[name], abs=1e-3), AGAIN


@pytest.mark.parametrize("name", signs.SIGNS)
def test_pictures_are_on_the_page(name):
    page = (DOCS / "explanation/conventions.md").read_text(encoding="utf-8")
    assert f"(../pictures/sign_{name}.png)" in page


def test_defocus(facts):
    """C10 > 0: the cross-over lies upstream."""
    assert facts["defocus"]["cross-over of C10 = +200 Å"] == pytest.approx(-200, abs=20)
    assert facts["defocus"]["cross-over of C10 = -200 Å"] == pytest.approx(200, abs=20)


def test_propagation(facts):
    """The defocus belongs to the first slice, and later slices lie downstream."""
    found = facts["slices"]
    assert found["slice with the focus"] == -found["C10"] / found["gap"] == 3


def test_aberrations(facts):
    """Where χ is positive, in the words of the page, and where coma moves the probe."""
    chi = facts["aberrations"]
    assert chi["C12a +x"] > 0 > chi["C12a +y"]
    assert chi["C12b +x+y"] > 0
    assert chi["C21a +x"] > 0 > chi["C21a -x"]
    assert chi["C21b +y"] > 0 > chi["C21b -y"]
    assert chi["C23a +x"] > 0
    assert chi["C23b -y"] > 0 > chi["C23b +y"]
    assert chi["C21a, probe x"] > 0.2
    assert chi["C21b, probe y"] > 0.2
    assert abs(chi["C21a, probe y"]) < 0.02


def test_scan(facts):
    """x is the fast axis, y points down, the beam is at position + n // 2."""
    found = facts["scan"]
    assert found["point 1 - point 0, x"] > 0 == found["point 1 - point 0, y"]
    assert found["point 4 - point 0, y"] > 0 == found["point 4 - point 0, x"]
    window = 20, 22
    for axis, n in zip("yx", window, strict=True):
        assert found[f"beam - position, {axis}"] == pytest.approx(n // 2, abs=0.1)


def test_rotation(facts):
    """A positive angle turns the scan clockwise on a screen, where y points down."""
    found = facts["rotation"]
    assert {a: found[f"direction of the fast axis at {a}°"] for a in (0, 30, -30)} == pytest.approx(
        {0: 0, 30: 30, -30: -30}
    )


def test_orientation(facts):
    """`flip_ky` first, then the exchange of axes."""
    found = facts["orientation"]
    row, column, rows = found["as stored, row"], found["as stored, column"], 11
    places = {
        "flip_ky": (rows - 1 - row, column),
        "transpose_patterns": (column, row),
        "both": (column, rows - 1 - row),
    }
    for name, place in places.items():
        assert (found[f"{name}, row"], found[f"{name}, column"]) == place


def test_phase(facts):
    """The beam is deflected towards positive phase."""
    assert facts["phase"]["centre of mass, x"] > 0.01
    assert facts["phase"]["centre of mass, y"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "wave_moves", "pattern_moves"),
    [("none", 0, 0), ("before", 1, 1), ("inside", 1, 0), ("after", 0, 1)],
)
def test_tilts(name, wave_moves, pattern_moves, facts):
    for axis, slope in zip("yx", (0.004, 0.012), strict=True):
        wave = facts["tilts"][f"{name}: exit wave, {axis} (Å)"]
        pattern = facts["tilts"][f"{name}: pattern, {axis} (mrad)"]
        assert wave == pytest.approx(wave_moves * 300 * slope, abs=0.1)
        assert pattern == pytest.approx(pattern_moves * 1e3 * slope, abs=0.05)
