"""``bench``, ``completion`` and ``keys``, and the lines of a run that cannot draw a bar."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pyptyx.cli import exits, main
from pyptyx.engine import bench
from pyptyx.engine.callbacks import Progress


@pytest.fixture
def small(monkeypatch):
    """The cases of the benchmark, small."""
    monkeypatch.setattr(bench, "_WINDOW", (12, 16))
    monkeypatch.setattr(bench, "_SCAN", (2, 3))


def test_bench_prints_a_table(small, capsys):
    assert main(["bench", "--devices", "1", "--repeats", "2"]) == exits.OK
    printed = capsys.readouterr()
    title, _, _, heading, *rows = printed.out.splitlines()
    assert title == "cpu, 1 workers, single precision"
    assert heading.split()[:3] == ["case", "slices", "modes"]
    assert [row.split()[-6:-4] for row in rows] == [["1", "1"], ["1", "4"], ["8", "1"]]
    assert printed.err == ""


def test_bench_gives_numbers(small, capsys):
    assert main(["bench", "--devices", "1", "--repeats", "1", "--json"]) == exits.OK
    for timing in json.loads(capsys.readouterr().out):
        assert timing["window"] == [12, 16]
        assert timing["patterns"] == 6
        assert timing["wall_us"] > 0
        assert timing["expected_us"] > 0
        assert timing["spread"] == 0


def test_keys_explains_from_the_schema(capsys):
    assert main(["keys", "ROTATION", "scan"]) == exits.OK
    out = capsys.readouterr().out
    assert "PLRotation_deg  [experiment]" in out
    assert "in deg; default 'auto'" in out
    assert "epoch_max" not in out
    assert main(["keys", "unicorn"]) == exits.INPUT
    assert "unicorn" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_keys(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == exits.OK
    out = capsys.readouterr().out
    for word in ("calibrate", "epoch_max=", "--largest-defocus", "multislice"):
        assert word.replace("--", "") in out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pyptyx res", "resume"),
        ("pyptyx run --set epoch_m", "epoch_max="),
        ("pyptyx direct w", "wdd"),
        ("pyptyx run sc", "scan.toml"),
    ],
)
def test_bash_completes(words, expected, tmp_path, capsys):
    pytest.importorskip("shtab")
    main(["completion", "bash"])
    lines = [
        capsys.readouterr().out,
        f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))",
        '_shtab_pyptyx; printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    (tmp_path / "scan.toml").touch()
    script = "\n".join(lines)
    done = subprocess.run(
        ["bash", "--norc"], input=script, cwd=tmp_path, env=dict(os.environ), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [expected]


def test_completion_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "zsh"]) == exits.INPUT
    assert 'pip install "pyptyx[completion]"' in capsys.readouterr().err


def shown(level, epochs, capsys, stops_at=None):
    """What the progress of a run writes to a stderr that is no terminal."""
    progress = Progress(level)
    progress.start(SimpleNamespace(first_epoch=0, params={"epoch_max": epochs}))
    for epoch in range(epochs):
        record = SimpleNamespace(
            epoch=epoch, loss=2.0, loss_after=1.0, step=1.0, evaluations=1, time_s=3.0,
            warnings="", contributions={},
        )  # fmt: skip
        reason = "converged" if epoch == stops_at else ""
        progress.epoch(SimpleNamespace(epoch=epoch, record=record, stop_reason=reason))
        if reason:
            break
    progress.finish(None, None)
    return capsys.readouterr().err


def test_a_log_gets_some_lines_instead_of_a_bar(capsys):
    err = shown(1, 200, capsys, stops_at=133)
    numbers = [int(line.split()[1].rstrip(":")) for line in err.splitlines()]
    assert numbers == [*range(0, 133, 10), 133]
    assert "\r" not in err


@pytest.mark.parametrize(("level", "lines"), [(0, 0), (1, 7), (2, 7)])
def test_a_short_run_gets_every_line(level, lines, capsys):
    assert len(shown(level, 7, capsys).splitlines()) == lines
