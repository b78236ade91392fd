"""The command line: ``pyptyx demo | run | resume | calibrate | direct | validate | doctor``.

Exit codes: 0 done, 2 something the user can mend (the message is on stderr), 130 interrupted.
This is the one module of the package that prints.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyptyx import __version__
from pyptyx.doctor import report
from pyptyx.errors import ParamError, Problem, ProblemError, PyptyxError

if TYPE_CHECKING:
    from pyptyx.engine.run import Result

OK, USER_ERROR, INTERRUPTED = 0, 2, 130

Settings = dict[str, Any]

_DIRECT = ("mf", "ssb", "obf", "tcbf", "icom", "joint", "wdd")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of the process.

    Returns
    -------
    int
        The exit code: 0, 2 or 130.
    """
    arguments = _parser().parse_args(argv)
    with _messages_on_stderr(arguments.verbose):
        try:
            code = arguments.command(arguments)
            sys.stdout.flush()
            return code
        except PyptyxError as error:
            if arguments.verbose:
                traceback.print_exc()
            print(f"pyptyx: {error}", file=sys.stderr)
            return USER_ERROR
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return OK
        except KeyboardInterrupt:
            print("pyptyx: interrupted", file=sys.stderr)
            return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    # Without SUPPRESS the default of a command would overwrite a -v given before it.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="details while working, and the traceback of an error",
    )
    parser = argparse.ArgumentParser(
        prog="pyptyx", description="Gradient-based ptychography for electron microscopy."
    )
    parser.add_argument("--version", action="version", version=f"pyptyx {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="details and tracebacks")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", parents=[common], help="reconstruct the shipped data set")
    demo.add_argument("--output", default="demo_output", metavar="DIR", help="default: %(default)s")
    demo.add_argument("--epochs", type=int, metavar="N", help="default: that of the preset")
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", parents=[common], help="reconstruct what a file describes")
    _add_file(run)
    run.add_argument("--output", metavar="DIR", help="output folder; wins over the file")
    run.set_defaults(command=_run)

    resume = commands.add_parser(
        "resume", parents=[common], help="continue a run, also one that was killed"
    )
    resume.add_argument("folder", type=Path, metavar="FOLDER", help="output folder of the run")
    resume.add_argument("--output", metavar="DIR", help="continue in another folder")
    _add_set(resume, "change one parameter; may be repeated")
    resume.set_defaults(command=_resume)

    _add_direct(commands, common)

    validate = commands.add_parser("validate", parents=[common], help="check a file, run nothing")
    _add_file(validate)
    validate.set_defaults(command=_validate, output=None)

    _add_calibrate(commands, common)

    doctor = commands.add_parser("doctor", parents=[common], help="show what this machine offers")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_direct(commands: Any, common: argparse.ArgumentParser) -> None:
    direct = commands.add_parser(
        "direct", parents=[common], help="image a thin specimen without iterations"
    )
    direct.add_argument("method", choices=_DIRECT, metavar="METHOD", help=", ".join(_DIRECT))
    _add_file(direct)
    direct.add_argument("--output", metavar="DIR", help="output folder; wins over the file")
    direct.set_defaults(command=_direct)


def _add_calibrate(commands: Any, common: argparse.ArgumentParser) -> None:
    calibrate = commands.add_parser(
        "calibrate",
        parents=[common],
        help="find rotation, detector axes and aberrations from the data",
    )
    _add_file(calibrate)
    calibrate.add_argument("--output", metavar="DIR", help="output folder; wins over the file")
    calibrate.add_argument(
        "--aberrations",
        type=int,
        default=12,
        metavar="N",
        help="largest number of coefficients: 3, 7, 12, 18 or 25 (default: %(default)s)",
    )
    calibrate.add_argument(
        "--defocus", choices=("over", "under"), help="sign of the defocus, if you know it"
    )
    calibrate.add_argument(
        "--largest-defocus", type=float, metavar="A", help="end of the search in Å, both signs"
    )
    calibrate.set_defaults(command=_calibrate)


def _add_file(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="TOML or JSON with the tables [experiment] and [preset], or parameters alone",
    )
    _add_set(
        command, "change one parameter (experiment.KEY=VALUE for the experiment); may be repeated"
    )


def _add_set(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)


@contextmanager
def _messages_on_stderr(verbose: bool) -> Iterator[None]:
    """Show the package's log on stderr for the duration of one command."""
    logger = logging.getLogger("pyptyx")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _demo(arguments: argparse.Namespace) -> int:
    from pyptyx.demo import run_demo

    report = run_demo(arguments.output, arguments.epochs)
    _print_result(report.result)
    for picture in report.pictures:
        print(f"picture   {picture}")
    return OK


def _run(arguments: argparse.Namespace) -> int:
    from pyptyx.engine.experiment import append_exp_params
    from pyptyx.iterative import run

    experiment, preset = _load(arguments)
    _print_result(run(append_exp_params(experiment, preset) if experiment else preset))
    return OK


def _resume(arguments: argparse.Namespace) -> int:
    from pyptyx.initialize import prepare_restart
    from pyptyx.iterative import run

    params = prepare_restart(arguments.folder, arguments.output)
    for text in arguments.set:
        key, value = _setting(text)
        params[key.removeprefix("preset.")] = value
    _print_result(run(params))
    return OK


def _direct(arguments: argparse.Namespace) -> int:
    from pyptyx.direct import direct_image, wdd
    from pyptyx.engine.experiment import append_exp_params

    experiment, preset = _load(arguments)
    params = append_exp_params(experiment, preset) if experiment else preset
    if arguments.method == "wdd":
        wdd(params, eps_wiener="auto", save=True)
    else:
        image = direct_image(params, arguments.method, save=True)
        if "resolution_A" in image.info:
            print(f"resolved  {image.info['resolution_A']:.3g} Å (half sets)")
            print(f"noise     {image.info['noise_rad']:.3g} rad")
    print(f"folder    {params.get('output_folder') or 'none: the result was not saved'}")
    return OK


def _calibrate(arguments: argparse.Namespace) -> int:
    from pyptyx.engine.calibrate import calibrate
    from pyptyx.engine.experiment import append_exp_params
    from pyptyx.methods.aberration_fit import FitOptions

    experiment, preset = _load(arguments)
    params = append_exp_params({"PLRotation_deg": 0.0, **experiment}, preset)
    measured = any(experiment.get(k) for k in ("rez_pixel_size_A", "rez_pixel_size_mrad"))
    overfocus = None if arguments.defocus is None else arguments.defocus == "over"
    options = FitOptions(
        num=arguments.aberrations,
        overfocus=overfocus,
        largest_defocus_A=arguments.largest_defocus,
    )
    found = calibrate(params, options, detector_from_disc=not measured)
    print(found.report)
    values = ", ".join(f"{c:.6g}" for c in found.params["aberrations"])
    print("\nfor the file\n\n[experiment]")
    print(f"PLRotation_deg = {found.params['PLRotation_deg']:.3f}")
    print(f"transpose_patterns = {str(bool(found.params['transpose_patterns'])).lower()}")
    print(f"aberrations = [{values}]")
    if not measured:
        print(f"rez_pixel_size_A = {found.params['rez_pixel_size_A']:.6g}")
    return OK


def _validate(arguments: argparse.Namespace) -> int:
    from pyptyx.engine.describe import describe
    from pyptyx.engine.experiment import append_exp_params
    from pyptyx.params import resolve
    from pyptyx.params.resolve import NEED

    experiment, preset = _load(arguments)
    problems: dict[Problem, None] = {}  # a set that keeps the order
    params: Settings = {**preset}
    need: tuple[str, ...] = ()
    try:
        if experiment:
            # Checking must not create the output folder.
            params = append_exp_params(
                {**experiment, "output_folder": None}, {**preset, "output_folder": None}
            )
        params["output_folder"] = {**preset, **experiment}.get("output_folder", "")
        need = NEED
    except ProblemError as error:
        problems.update(dict.fromkeys(error.problems))
    try:
        resolve(params, need=need)
    except ProblemError as error:
        # Without the experiment's part only what the preset itself says can be judged.
        problems.update(dict.fromkeys(p for p in error.problems if need or p.key in preset))
    if problems:
        raise ParamError(problems)
    print(describe(params))
    return OK


def _load(arguments: argparse.Namespace) -> tuple[Settings, Settings]:
    """The experiment and the preset of the file, with the changes of the command line."""
    from pyptyx.params import load_run_file

    experiment, preset = load_run_file(arguments.file)
    for text in arguments.set:
        key, value = _setting(text)
        table, _, name = key.rpartition(".")
        (experiment if table == "experiment" else preset)[name] = value
    if arguments.output is not None:
        (experiment or preset)["output_folder"] = arguments.output
    return experiment, preset


def _setting(text: str) -> tuple[str, Any]:
    """``key=value``; the value is JSON, True, False, None, or else the text itself."""
    key, equals, value = text.partition("=")
    key = key.strip()
    table = key.rpartition(".")[0]
    if not (equals and key) or table not in {"", "experiment", "preset"}:
        raise ParamError(
            Problem(
                "--set",
                "KEY=VALUE, experiment.KEY=VALUE or preset.KEY=VALUE",
                repr(text),
                "For instance --set epoch_max=50",
            )
        )
    words = {"True": True, "False": False, "None": None}
    if value in words:
        return key, words[value]
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _print_result(result: Result) -> None:
    if result.losses:
        first, last = result.losses[0].loss, result.final_loss
        print(f"epochs    {len(result.losses)}, loss {first:.6g} -> {last:.6g}")
    print(f"stopped   {result.stop_reason}")
    print(f"folder    {result.folder or 'none: the result was not saved'}")


def _doctor(_: argparse.Namespace) -> int:
    print("\n".join(report()))
    return OK


if __name__ == "__main__":
    sys.exit(main())
