"""EMPAD: raw float32 frames of 130 x 128, and the XML file that describes them.

The last two rows of a frame are not pixels of the detector and are left out; patterns are
128 x 128, axes [sy, sx, ky, kx] as stored.  Either file may be named.  The scan size comes from
``scan_size``, else from the XML file, else from a name like ``scan_x32_y64.raw``.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from pyptyx.data.formats.base import Found, Opened, Request, entries, number, positive, refusal
from pyptyx.data.npy import open_array
from pyptyx.errors import DataError, Problem

_ROWS, _COLUMNS = 128, 128
_STORED_ROWS = 130
_FRAME_BYTES = _STORED_ROWS * _COLUMNS * 4
_XML_BYTES = 16 << 20

_FULL_FIELD = "iom_measurements/full_scan_field_of_view/x"
_FULL_FIELD_NOTE = (
    "The XML file gives the field of view of the whole scan, not the step of this scan: "
    "the step is not taken from it."
)


def open_file(request: Request) -> Opened:
    """Patterns of an EMPAD file.

    Raises
    ------
    DataError
        If the raw file is missing, its size does not fit the frames, or the XML is not EMPAD's.
    """
    named_xml = request.path.suffix.lower() == ".xml"
    description = request.path if named_xml else _description_of(request.path)
    tree = None if description is None else _parse(description, must=named_xml)
    raw = _raw_of(request.path, tree) if named_xml and tree is not None else request.path
    count, left = divmod(raw.stat().st_size, _FRAME_BYTES)
    if count == 0 or left:
        raise refusal(
            raw,
            f"{raw.stat().st_size} bytes, {count} frames and {left} bytes more",
            "The file is cut short, or the raw data of another detector: convert it to .npy.",
            f"frames of {_STORED_ROWS} x {_COLUMNS} float32, {_FRAME_BYTES} bytes each",
        )
    size = _scan_size(request, raw, tree)
    if size is not None and math.prod(size) != count:
        raise DataError(
            Problem(
                "scan_size",
                f"Ny x Nx = {count}, the frames of {raw}",
                f"{size[0]} x {size[1]} = {math.prod(size)}",
                "If the scan was stopped early or the file is cut short, "
                "give the scan_size of the complete rows and cut the file.",
            )
        )
    frames = np.memmap(raw, dtype="<f4", mode="r", shape=(count, _STORED_ROWS, _COLUMNS))
    source = open_array(
        frames[:, :_ROWS], name=str(raw), scan_size=size, orientation=request.orientation
    )
    found = () if tree is None or description is None else _found(tree, description.name)
    notes = (_FULL_FIELD_NOTE,) if any(f.key == "field_of_view_nm" for f in found) else ()
    return Opened(source, "EMPAD raw", found, notes=notes, files=(raw,))


def _description_of(raw: Path) -> Path | None:
    """The XML file of a raw file: of the same name, or the only one of the folder naming it."""
    same = raw.with_suffix(".xml")
    if same.is_file():
        return same
    naming = []
    for path in sorted(raw.parent.glob("*.xml"))[:50]:
        tree = _parse(path, must=False)
        if tree is not None and _raw_name(tree) == raw.name:
            naming.append(path)
    return naming[0] if len(naming) == 1 else None


def _parse(path: Path, *, must: bool) -> ET.Element | None:
    """Root of an XML file of EMPAD; one that merely lies beside the data may be anything."""
    fault = "another kind of file"
    try:
        if path.stat().st_size <= _XML_BYTES:
            root = ET.parse(path).getroot()
            if root.find("raw_file") is not None:
                return root
    except (ET.ParseError, OSError, ValueError) as error:
        fault = str(error)
    if must:
        remedy = "Name the .raw file, or the .xml file written with it."
        raise refusal(path, fault, remedy, "an XML file of EMPAD with <raw_file>")
    return None


def _raw_name(tree: ET.Element) -> str:
    element = tree.find("raw_file")
    # Old files carry a path of the acquisition computer, of either kind.
    return re.split(r"[\\/]", "" if element is None else element.get("filename", ""))[-1]


def _raw_of(description: Path, tree: ET.Element) -> Path:
    for path in (description.with_name(_raw_name(tree)), description.with_suffix(".raw")):
        if path.is_file():
            return path
    raise refusal(
        description,
        f"no {_raw_name(tree)} beside it",
        "Put the raw file into the folder of the XML file.",
        "the raw file that the XML file names",
    )


def _scan_size(request: Request, raw: Path, tree: ET.Element | None) -> tuple[int, int] | None:
    if request.scan_size is not None:
        rows, columns = (int(n) for n in request.scan_size)
        return rows, columns
    names = [raw.name]
    if tree is not None:
        for block in [*tree.findall("scan_parameters[@mode='acquire']"), tree]:
            for y, x in (("scan_resolution_y", "scan_resolution_x"), ("pix_y", "pix_x")):
                size = positive(block.findtext(y)), positive(block.findtext(x))
                if size[0] and size[1]:
                    return int(size[0]), int(size[1])
        names.append(_raw_name(tree))
    for name in names:
        match = re.search(r"_x(\d+)_y(\d+)", name)
        if match:
            return int(match[2]), int(match[1])
    return None


def _found(tree: ET.Element, name: str) -> tuple[Found, ...]:
    def say(place: str) -> str | None:
        return tree.findtext(place)

    beam = "iom_measurements/high_voltage"
    camera = "iom_measurements/nominal_camera_length"
    turn = "iom_measurements/scan_rotation"
    rows = [
        ("acc_voltage", positive(say(beam), 1e-3), "kV", f"{name}: {beam}"),
        ("camera_length_mm", positive(say(camera), 1e3), "mm", f"{name}: {camera} (nominal)"),
        ("scan_rotation_deg", number(say(turn)), "deg", f"{name}: {turn}"),
        ("field_of_view_nm", positive(say(_FULL_FIELD), 1e9), "nm", f"{name}: {_FULL_FIELD}"),
        ("exposure_time_ms", positive(say("exposure_time")), "ms", f"{name}: exposure_time"),
    ]
    return tuple(entries(rows))
