"""Cut the demo data set ``cryo_rotavirus.h5`` out of the full cryo 4D-STEM file.

    python make_cryo_subset.py full_64x64x128x128.h5 cryo_rotavirus.h5

All 64 x 64 scan positions are kept.  The detector is cropped to 72 x 72 pixels around the
bright-field disc and summed 2 x 2, so that the disc centre falls on index N//2 = 18 of 36.
Orientation and counts stay as recorded: no flip, no transposition, no scaling.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import h5py
import numpy as np

FIRST_ROW, FIRST_COLUMN, WIDTH, BIN = 26, 27, 72, 2
CHUNKS = (1, 16, WIDTH // BIN, WIDTH // BIN)
LICENCE = """MIT License. Copyright (c) 2023 Xiaopeng Wu, Yu Lei.
The full text is in README.md beside this file."""


def sum_bin(patterns: np.ndarray, width: int) -> np.ndarray:
    """Sum width x width blocks of (sy, sx, ky, kx); uint8 if the sums fit, else uint16."""
    sy, sx, ky, kx = patterns.shape
    blocks = patterns.reshape(sy, sx, ky // width, width, kx // width, width)
    sums = blocks.sum(axis=(3, 5), dtype=np.uint16)
    return sums.astype(np.uint8) if sums.max() <= np.iinfo(np.uint8).max else sums


def attributes(full: h5py.File, scan_size: tuple[int, int]) -> dict[str, object]:
    """Calibration of the subset in the units and signs of pyptyx."""
    old = full.attrs
    return {
        "title": "Rotavirus particles and gold markers in vitreous ice beside a carbon edge",
        "acc_voltage": old["energy"] / 1e3,
        "conv_semiangle_mrad": old["semiangle"],
        "scan_step_A": old["step"],
        "scan_size": scan_size,
        "rez_pixel_size_A": old["dk"] * BIN,
        "C10_A": -old["defocus"],
        "PLRotation_deg": -old["rotation_deg"],
        "units": "acc_voltage kV; rez_pixel_size_A 1/A per pixel of the shipped pattern; rest A",
        "axes": "data[scan_y, scan_x, ky, kx]; positions[scan_y, scan_x] = (row, column) in A",
        "centre": "zero frequency at index N//2 of both detector axes",
        "defocus_note": (
            f"C10_A uses the sign of pyptyx, C10 = -defocus (positive is over-focus). The authors' "
            f"value is {old['defocus']:g} A in the sign of abTEM (positive is under-focus)."
        ),
        "rotation_note": (
            f"positions hold the rotation already. The authors' value is {old['rotation_deg']:g} "
            f"degrees; PLRotation_deg is the same rotation in the sign of pyptyx."
        ),
        "orientation_note": "patterns as recorded in the full file: not flipped, not transposed",
        "processing": (
            f"detector rows {FIRST_ROW}:{FIRST_ROW + WIDTH} and columns "
            f"{FIRST_COLUMN}:{FIRST_COLUMN + WIDTH} of the full file, summed {BIN}x{BIN}; "
            f"the full file was itself binned by {old['binning']}"
        ),
        "source": old["source"],
        "licence": LICENCE,
    }


def main() -> None:
    """Read the full file and write the subset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("full", type=Path, help="file with /data (64, 64, 128, 128), /positions")
    parser.add_argument("subset", type=Path, help="file to write")
    paths = parser.parse_args()

    temporary = paths.subset.with_name(paths.subset.name + ".part")
    with h5py.File(paths.full, "r") as full, h5py.File(temporary, "w") as out:
        rows = slice(FIRST_ROW, FIRST_ROW + WIDTH)
        columns = slice(FIRST_COLUMN, FIRST_COLUMN + WIDTH)
        patterns = sum_bin(full["data"][:, :, rows, columns], BIN)
        packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
        out.create_dataset("data", data=patterns, chunks=CHUNKS, **packed)
        out.create_dataset("positions", data=full["positions"][()], **packed)
        out["positions"].attrs["units"] = "A"
        out.attrs.update(attributes(full, patterns.shape[:2]))
    os.replace(temporary, paths.subset)


if __name__ == "__main__":
    main()
