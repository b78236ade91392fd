"""``direct`` and ``calibrate``: commands that image without iterations."""

from __future__ import annotations

import argparse

from pyptyx.cli import exits
from pyptyx.cli.options import add_file, add_output, attached, load

_METHODS = ("mf", "ssb", "obf", "tcbf", "icom", "joint", "wdd")


def direct_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``direct``."""
    parser.add_argument("method", choices=_METHODS, metavar="METHOD", help=", ".join(_METHODS))
    add_file(parser)
    add_output(parser)


def direct(arguments: argparse.Namespace) -> int:
    """Image a thin specimen."""
    from pyptyx.direct import direct_image, wdd

    params = attached(*load(arguments))
    if arguments.method == "wdd":
        wdd(params, eps_wiener="auto", save=True)
    else:
        image = direct_image(params, arguments.method, save=True)
        if "resolution_A" in image.info:
            print(f"resolved  {image.info['resolution_A']:.3g} Å (half sets)")
            print(f"noise     {image.info['noise_rad']:.3g} rad")
    print(f"folder    {params.get('output_folder') or 'none: the result was not saved'}")
    return exits.OK


def calibrate_options(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``calibrate``."""
    add_file(parser)
    add_output(parser)
    parser.add_argument(
        "--aberrations",
        type=int,
        default=12,
        metavar="N",
        help="largest number of coefficients: 3, 7, 12, 18 or 25 (default: %(default)s)",
    )
    parser.add_argument(
        "--defocus", choices=("over", "under"), help="sign of the defocus, if you know it"
    )
    parser.add_argument(
        "--largest-defocus", type=float, metavar="A", help="end of the search in Å, both signs"
    )


def calibrate(arguments: argparse.Namespace) -> int:
    """Find rotation, detector axes and aberrations, and print them as keys for the file."""
    from pyptyx.engine.calibrate import calibrate as calibrated
    from pyptyx.engine.experiment import append_exp_params
    from pyptyx.methods.aberration_fit import FitOptions

    experiment, preset = load(arguments)
    params = append_exp_params({"PLRotation_deg": 0.0, **experiment}, preset)
    measured = any(experiment.get(k) for k in ("rez_pixel_size_A", "rez_pixel_size_mrad"))
    options = FitOptions(
        num=arguments.aberrations,
        overfocus=None if arguments.defocus is None else arguments.defocus == "over",
        largest_defocus_A=arguments.largest_defocus,
    )
    found = calibrated(params, options, detector_from_disc=not measured)
    print(found.report)
    values = ", ".join(f"{c:.6g}" for c in found.params["aberrations"])
    print("\nfor the file\n\n[experiment]")
    print(f"PLRotation_deg = {found.params['PLRotation_deg']:.3f}")
    print(f"transpose_patterns = {str(bool(found.params['transpose_patterns'])).lower()}")
    print(f"aberrations = [{values}]")
    if not measured:
        print(f"rez_pixel_size_A = {found.params['rez_pixel_size_A']:.6g}")
    return exits.OK
