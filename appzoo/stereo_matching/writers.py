"""Result files: PNG maps under the names of their pairs, in one archive."""

from __future__ import annotations

import base64
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from easytransfer.errors import DataError

# Folder of the archive by output column; the first is the one that the KITTI benchmark wants.
_FOLDERS = {"disparity_png": "disp_0", "colour_png": "colour", "occlusion_png": "occlusion", "depth_png": "depth"}
# An archive of the same maps has the same bytes, whenever it was written.
_DATE = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Writes a ZIP archive with `disp_0/NAME.png`, 16 bits as KITTI has them, `colour/NAME.png` and so on.

    Raises:
        DataError: Two pairs have one name, or no column of maps was chosen.
    """
    seen: set[str] = set()
    # PNG files hardly shrink any more.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for row in rows:
            name, columns = row.get("name"), [column for column in _FOLDERS if column in row]
            if name is None or not columns:
                accepted = f"name and some of {', '.join(_FOLDERS)}"
                raise DataError("a .zip of maps has no maps or no names", received=", ".join(row), accepted=accepted)
            if name in seen:
                raise DataError(f"two pairs have the name {name!r}: one map would replace the other", fix="rename one")
            seen.add(name)
            for column in columns:
                _, _, text = row[column].partition(";base64,")
                member = zipfile.ZipInfo(f"{_FOLDERS[column]}/{name}.png", _DATE)
                member.external_attr = 0o644 << 16
                archive.writestr(member, base64.b64decode(text, validate=True))


WRITERS = {".zip": write_archive}
