"""The report as files: a page that needs nothing else, and numbers; from folders in any state."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

import pyptyx
from pyptyx import cli
from pyptyx.engine import half_data
from pyptyx.engine.findings import Finding
from pyptyx.engine.report import Report, make_report, report_on, watch, write_report
from pyptyx.errors import DataError, ParamError
from pyptyx.output import report_figures as figures
from pyptyx.output.report_page import Page, Section, Table, Text, Tile, Tiles

NY, NX, SCAN, SLICES = 20, 18, (6, 8), 3
N = SCAN[0] * SCAN[1]
HELD_OUT = [4, 15, 29]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run with slices, modes, moving positions and patterns held out: result, folder."""
    home = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(2)
    positions = 1.8 * np.stack(np.mgrid[: SCAN[0], : SCAN[1]], axis=-1).reshape(-1, 2) + 2
    y, x = np.mgrid[:NY, :NX] - np.array([NY // 2, NX // 2])[:, None, None]
    shape = np.exp(-(y**2 / 9 + x**2 / 7)) * np.exp(0.05j * (y**2 + x**2))
    probe = np.stack([shape, 0.4 * shape * y], axis=-1) * 4
    size = np.ceil(positions.max(axis=0)).astype(int) + np.array([NY + 2, NX + 2])
    obj = np.exp(0.3j * rng.uniform(size=(*size, SLICES, 1)))
    params = {
        "acc_voltage": 200, "pixel_size_y_A": 0.4, "pixel_size_x_A": 0.5, "scan_size": SCAN,
        "positions": positions, "probe": probe, "slice_distances": [9.0], "print_flag": 0,
    }  # fmt: skip
    patterns = rng.poisson(pyptyx.simulate(params | {"obj": obj})).astype(np.uint16)
    np.save(home / "data.npy", patterns)
    run = {
        "data_path": str(home / "data.npy"), "output_folder": str(home / "run"),
        "sequence": np.setdiff1d(np.arange(N), HELD_OUT), "num_slices": SLICES, "epoch_max": 3,
        "update_probe_pos": 1, "extra_space_on_side_px": 2, "sample_name": "A <b>thin</b> & flat",
    }  # fmt: skip
    return pyptyx.run(params | run), home / "run"


@pytest.fixture(scope="module")
def report(finished):
    return make_report(finished[1])


@pytest.fixture(scope="module")
def page(report):
    return report.page().html()


@pytest.fixture
def bare(monkeypatch):
    """Pages without sections, which take most of the time."""
    monkeypatch.setattr("pyptyx.engine.report.sections", lambda content: [])


class Elements(HTMLParser):
    """Tags with their attributes; and whether every one is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_complete_in_itself(page):
    elements = Elements(page)
    assert elements.open == []
    names = {tag for tag, _ in elements.found}
    assert not names & {"script", "link", "iframe"}
    for tag, attributes in elements.found:
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "data:").startswith(("data:image/png", "#", "data:"))
        if tag == "img":
            assert attributes["alt"]
        if attributes.get("role") == "img":
            assert attributes["aria-label"]
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert 'http-equiv="refresh"' not in page


def test_ids_are_unique_and_references_hit(page):
    ids = [a["id"] for _, a in Elements(page).found if "id" in a]
    assert len(ids) == len(set(ids)) > 10
    used = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert set(used) <= set(ids)


def test_text_of_the_user_is_escaped(page):
    assert "<b>thin</b>" not in page
    assert "<h1>A &lt;b&gt;thin&lt;/b&gt; &amp; flat</h1>" in page


def test_what_is_shown(page):
    for alt in ("phase of slice 2", "amplitude of slice 0", "probe mode 1, reciprocal space"):
        assert alt in page
    for name in ("phase", "amplitude", "loss", "steps", "rings", "deviation", "chi2map", "arrows"):
        assert f'id="{name}-' in page
    assert "--half-data" in page
    assert "3 patterns that took no part in the fit" in page


def test_numbers_of_the_file(report, finished, tmp_path, bare):
    page, numbers = write_report(report, tmp_path / "new" / "look.html")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    found = json.loads(numbers.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert numbers.name == "look.json"
    assert found["facts"]["epochs"] == 3
    assert found["facts"]["finished"] is True
    assert found["held_out"]["numbers"] == HELD_OUT
    assert found["fitted"]["numbers"] == [n for n in range(N) if n not in HELD_OUT]
    losses = [record.loss_after for record in finished[0].losses]
    assert [record["loss_after"] for record in found["log"]] == pytest.approx(losses)
    assert np.shape(found["displacements_px"]) == (N, 2)
    assert found["object_shape"] == list(finished[0].object.shape)
    assert found["slice_distances_A"] == [9.0, 9.0]
    assert [f["rule"] for f in found["findings"]] == [f.rule for f in report.findings]


def test_positions_have_moved(finished, report):
    start = np.array(finished[0].params["positions"])
    moved = finished[0].positions - start
    expected = moved - moved.mean(axis=0)
    np.testing.assert_allclose(report.material.displacements_px, expected, atol=1e-6)
    assert report.content.facts.displacement_px == pytest.approx(
        np.sqrt((expected**2).sum(axis=1).mean()), abs=1e-6
    )


def test_findings_stand_on_the_page(report, bare):
    one = Finding("rule", "A title", "Seen <this>", "Do `that`")
    page = Report(report.content, [one]).page().html()
    assert "Seen &lt;this&gt;" in page
    assert "Do <code>that</code>" in page
    assert "Nothing suspicious" in Report(report.content, []).page().html()


def test_without_data(finished):
    """The numbers of the arrays and the log remain."""
    report = make_report(finished[1], changes={"data_path": "nowhere.npy"})
    assert report.content.fitted is None
    assert "nowhere.npy" in report.content.note
    assert make_report(finished[1], patterns=0).content.fitted is None
    some = make_report(finished[1], patterns=5)
    assert len(some.content.fitted.numbers) == 5
    assert some.content.note.startswith(f"{N - len(HELD_OUT) - 5} more fitted patterns")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=re.escape("params.json")):
        make_report(tmp_path)


@pytest.fixture
def going_on(finished, tmp_path):
    """A copy of the folder as it is in the middle of the run."""
    for path in finished[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "resume.npz").unlink()
    sidecar = json.loads((tmp_path / "checkpoint.json").read_text())
    (tmp_path / "checkpoint.json").write_text(json.dumps(sidecar | {"epoch": 2}))
    return tmp_path


def test_a_run_that_goes_on_is_watched_until_it_ends(going_on, tmp_path, bare):
    page, refreshed = tmp_path / "page.html", []

    def wait(seconds):
        refreshed.append(f'http-equiv="refresh" content="{seconds:.0f}"' in page.read_text())
        sidecar = json.loads((going_on / "checkpoint.json").read_text())
        (going_on / "checkpoint.json").write_text(json.dumps(sidecar | {"epoch": 2}))
        if len(refreshed) == 2:
            (going_on / "checkpoint.json").write_text(json.dumps(sidecar | {"epoch": 3}))

    last = watch(going_on, page, 7.0, patterns=0, wait=wait)
    assert refreshed == [True, True]
    assert last.material.finished
    assert "refresh" not in page.read_text()


def test_a_silent_run_is_not_waited_for(going_on, tmp_path, bare):
    for name in ("loss.csv", "checkpoint.json", "params.json"):
        os.utime(going_on / name, (1e9, 1e9))
    last = watch(going_on, tmp_path / "p.html", 1.0, patterns=0, wait=pytest.fail)
    assert "perhaps killed" in last.material.status
    assert not last.content.facts.finished


def test_a_folder_that_stays_unreadable_ends_the_watch(tmp_path):
    waits = []
    with pytest.raises(DataError):
        watch(tmp_path, tmp_path / "page.html", 2.0, wait=waits.append)
    assert waits == [2.0, 2.0]


def test_half_data_is_kept_in_the_folder(finished, going_on):
    found = half_data.half_data(going_on, 1)
    assert (found.epochs, found.from_start) == (1, False)
    assert sum(found.patterns) == N - len(HELD_OUT)
    assert half_data.load(going_on) == found
    page = make_report(going_on, patterns=0).page().html()
    assert 'id="frc-' in page
    assert "share its noise" in page
    (going_on / half_data.FILE).write_text('{"epochs": 1}')
    with pytest.raises(DataError, match="damaged"):
        half_data.load(going_on)
    with pytest.raises(ParamError, match="number of epochs"):
        half_data.half_data(going_on, -1)


def test_result_in_a_notebook(finished, monkeypatch):
    result = finished[0]
    text = result._repr_html_()
    assert Elements(text).open == []
    assert 'id="phase-' in text
    assert "&lt;b&gt;thin" in text
    assert "<style" not in text
    assert report_on(result).content.facts.epochs == 3
    assert report_on(result).content.fitted is None
    numbers = report_on(result, patterns=None).content.fitted.numbers
    assert len(numbers) == N - len(HELD_OUT)
    monkeypatch.setattr("pyptyx.engine.report._WAVE_PIXELS", 1000)
    assert report_on(result, patterns=None).content.fitted is None
    figure = result.plot()
    titles = [ax.get_title() for ax in figure.axes]
    assert {"phase / rad", "amplitude", "probe, mode 0", "loss"} <= set(titles)
    curve = figure.axes[titles.index("loss")].lines[0].get_xydata()
    np.testing.assert_allclose(curve[:, 1], [r.loss_after for r in result.losses])


def test_command(finished, tmp_path, capsys, bare):
    page = tmp_path / "page.html"
    assert cli.main(["report", str(finished[1]), "-o", str(page), "--patterns", "4"]) == 0
    assert len(json.loads(page.with_suffix(".json").read_text())["fitted"]["numbers"]) == 4
    assert str(page) in capsys.readouterr().out
    assert cli.main(["report", str(tmp_path / "no such folder")]) == 1


def test_image_keeps_its_mean_and_its_hole():
    image = np.full((6, 500), 0.5)
    mask = np.ones((6, 500), bool)
    mask[:, :250] = False
    uri = figures.image_uri(image, (0.0, 1.0), mask=mask)
    pixels = imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert pixels.shape[:2] == (3, 250)  # averaged over blocks of 2 x 2
    assert pixels[:, :125, 3].max() == 0
    np.testing.assert_allclose(pixels[:, 125:, 0], 0.5, atol=0.01)


def test_blocks_of_a_page():
    tile = Tile("data:image/png;base64,AA", "mode `0`", 'an "image"', 1.5)
    table = Table(("key", "value"), [("`a`", "<1>")], "more")
    sections = [Section("One", [Text("odd ` quote"), Tiles("T", [tile], pixels=True), table])]
    page = Page("t", "s", [("n", "1")], [], 21, sections, refresh_s=0.2).html()
    assert Elements(page).open == []
    for part in (
        "odd ` quote", "<code>0</code>", "an &quot;image&quot;", "aspect-ratio:1.5000",
        "&lt;1&gt;", "<summary>more</summary>", 'content="1"', "21 rules were checked",
    ):  # fmt: skip
        assert part in page
