"""Images of an output folder: numbers as TIFF, pictures as PNG, and the command."""

import sys

import numpy as np
import pytest
from nexus_folders import NX, NY, PIXEL, RUNS, SCAN, STEP_A, X, Y, write_direct, write_run

from pyptyx import cli
from pyptyx.engine import export_images as module
from pyptyx.engine.export_images import export_images
from pyptyx.errors import OutputError, ParamError, ShapeError
from pyptyx.output.images import save_figure, write_tiff
from pyptyx.output.plots import plot_map
from pyptyx.params import load_params, save_params

tifffile = pytest.importorskip("tifffile")


def per_pixel_nm(page, axis):
    """Pixel size in nm from the resolution of a page."""
    pixels, length = page.tags[f"{axis}Resolution"].value
    return length / pixels


def test_phase_and_amplitude_as_stacks(tmp_path):
    arrays = write_run(tmp_path / "run", **RUNS["multislice"])
    files = export_images(tmp_path / "run", tmp_path / "out", "tiff")
    assert [path.name for path in files] == ["phase.tif", "amplitude.tif", "probe.tif"]
    expected = {"phase": np.angle(arrays["co"]), "amplitude": abs(arrays["co"])}
    for name, images in expected.items():
        with tifffile.TiffFile(tmp_path / f"out/{name}.tif") as file:
            assert file.is_imagej
            assert file.series[0].axes == "ZCYX"
            stack, page = file.asarray(), file.pages[0]
            assert file.imagej_metadata["unit"] == "nm"
            assert file.imagej_metadata["spacing"] == pytest.approx(0.4)
        assert stack.dtype == np.float32
        np.testing.assert_allclose(stack, images.transpose(2, 3, 0, 1), rtol=1e-6)
        assert per_pixel_nm(page, "Y") == pytest.approx(PIXEL[0] / 10, rel=1e-6)
        assert per_pixel_nm(page, "X") == pytest.approx(PIXEL[1] / 10, rel=1e-6)


def test_modes_and_scenarios_of_a_probe_are_pages(tmp_path):
    arrays = write_run(tmp_path / "run", slices=1, probe_modes=3, scenarios=2)
    export_images(tmp_path / "run", tmp_path / "out", "tiff")
    pages = tifffile.imread(tmp_path / "out/probe.tif")
    assert pages.shape == (6, NY, NX)
    np.testing.assert_allclose(pages[1], abs(arrays["cp"][..., 0, 1]) ** 2, rtol=1e-6)
    assert tifffile.imread(tmp_path / "out/phase.tif").shape == (Y, X)


def test_unequal_distances_are_mentioned(tmp_path, caplog):
    write_run(tmp_path / "run", **RUNS["multislice"])
    params = load_params(tmp_path / "run")
    save_params(tmp_path / "run", {**params, "slice_distances": [2.0, 7.0]})
    export_images(tmp_path / "run", tmp_path / "out", "tiff")
    assert "their mean, 4.5 Å" in caplog.text


def test_direct_results_as_tiff(tmp_path):
    arrays = write_direct(tmp_path / "run")
    files = export_images(tmp_path / "run", tmp_path / "out", "tiff")
    names = {path.name for path in files}
    assert {"direct_mf_phase.tif", "wdd_amplitude.tif", "tcbf_image_0_intensity.tif"} <= names
    assert not any("ssnr" in name or "frc" in name for name in names)
    with tifffile.TiffFile(tmp_path / "out/direct_depth_stack_phase.tif") as file:
        np.testing.assert_allclose(file.asarray(), arrays["direct/depth_stack"], rtol=1e-6)
        assert file.series[0].axes == "ZYX"
        assert file.imagej_metadata["spacing"] == pytest.approx(2.5)
        assert per_pixel_nm(file.pages[0], "X") == pytest.approx(STEP_A / 10, rel=1e-6)


def test_images_without_a_pixel_size_are_left_out(tmp_path, caplog):
    (tmp_path / "run/dpc").mkdir(parents=True)
    np.save(tmp_path / "run/dpc/idpc.npy", np.ones(SCAN))
    assert export_images(tmp_path / "run", tmp_path / "out", "tiff") == ()
    assert "dpc_idpc is left out" in caplog.text


@pytest.mark.parametrize(
    "images",
    [np.ones(3), np.ones((2, 3), complex), np.ones((0, 3)), np.ones((2, 2, 2, 3, 4))],
)
def test_what_is_no_image_is_refused(tmp_path, images):
    with pytest.raises(ShapeError, match="real images"):
        write_tiff(tmp_path / "x.tif", images, (1, 1))
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(OutputError, match=r"pyptyx\[tiff\]"):
        write_tiff(tmp_path / "x.tif", np.ones((2, 3)), (1, 1))


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ParamError, match="tiff, png"):
        export_images(tmp_path, tmp_path / "out", "gif")
    assert not (tmp_path / "out").exists()


def test_pictures_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_DPI", 40)
    write_run(tmp_path / "run", slices=2, object_modes=1, probe_modes=3)
    files = export_images(tmp_path / "run", tmp_path / "out")
    assert {path.stem for path in files} == {
        *("phase", "phase_slice_0", "phase_slice_1"),
        *("amplitude", "amplitude_slice_0", "amplitude_slice_1", "probe", "loss"),
    }
    for path in files:
        assert path.read_bytes().startswith(b"\x89PNG")


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_pictures_have_scale_bars_and_units(tmp_path, monkeypatch):
    write_run(tmp_path / "run", slices=1, object_modes=2)
    write_direct(tmp_path / "run")
    figures = {}
    monkeypatch.setattr(module, "save_figure", lambda path, f, dpi: figures.update({path.stem: f}))
    export_images(tmp_path / "run", tmp_path / "out")
    assert "phase_mode_1" in figures
    assert "direct_depth_stack_phase_slice_2" in figures
    # About a quarter of the 11 points of 1.5 Å.
    assert texts(figures["direct_mf_phase"]) == ["2 Å"]
    assert figures["direct_mf_phase"].axes[1].get_ylabel() == "phase / rad"
    assert figures["tcbf_image_0_intensity"].axes[1].get_ylabel() == "intensity"
    assert texts(figures["phase_mode_0"])


def test_one_position_shows_the_whole_object(tmp_path, monkeypatch):
    write_run(tmp_path / "run")
    np.save(tmp_path / "run/cg.npy", np.array([[2.0, 3.0]]))
    figures = {}
    monkeypatch.setattr(module, "save_figure", lambda path, f, dpi: figures.update({path.stem: f}))
    export_images(tmp_path / "run", tmp_path / "out")
    assert figures["phase"].axes[0].images[0].get_array().shape == (Y, X)


def test_a_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    figure = plot_map(np.arange(12.0).reshape(3, 4), 0.5, "counts")
    save_figure(tmp_path / "a.png", figure)
    before = (tmp_path / "a.png").read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(OutputError, match="no space"):
        save_figure(tmp_path / "a.png", figure)
    assert (tmp_path / "a.png").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ([], "run.nxs"),
        (["--format", "tiff"], "run_tiff/phase.tif"),
        (["--format", "png"], "run_png/phase.png"),
        (["--no-checksum", "--output", "{}/there.nxs"], "there.nxs"),
        (["--format", "tiff", "-o", "{}/there"], "there/amplitude.tif"),
    ],
)
def test_the_command(tmp_path, capsys, words, made):
    write_run(tmp_path / "run")
    assert cli.main(["export", str(tmp_path / "run"), *(w.format(tmp_path) for w in words)]) == 0
    assert (tmp_path / made).is_file()
    assert str(tmp_path / made) in capsys.readouterr().out
