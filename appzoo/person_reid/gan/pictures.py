"""A sheet of persons in the outfits of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from appzoo.person_reid.gan.model import ApparelGan
from appzoo.person_reid.network import unit_images
from easytransfer.data.encoded import EncodedTable
from easytransfer.image.contact_sheet import write_contact_sheet

OUTFITS_FILE = "outfits.png"
PERSONS, OUTFITS = 8, 6


def write_outfits(path: Path, gan: ApparelGan, encoded: EncodedTable) -> None:
    """Writes a PNG: above persons whose outfits are taken, below persons, each as it is and in these outfits.

    Args:
        path: The file.
        gan: The model.
        encoded: Table with `image`, and `mask` where masks come from a column.
    """
    chosen = np.unique(np.linspace(0, len(encoded) - 1, min(PERSONS + OUTFITS, len(encoded))).astype(int))
    worn, rows = chosen[1::2][:OUTFITS], chosen
    rows = np.array([row for row in rows if row not in worn] or list(worn))[:PERSONS]
    wanted, persons = (_arrays(encoded, each) for each in (worn if len(worn) else rows, rows))
    codes = gan.encoder(wanted["image"], gan.masks(wanted))
    columns = [_bytes(persons["image"])]
    for number in range(codes.shape[0]):
        same = tf.repeat(codes[number : number + 1], len(rows), axis=0)
        columns.append(_bytes(gan.simulated(persons["image"], gan.masks(persons), same)))
    sheet = np.stack(columns, axis=1)
    header = np.concatenate([np.full_like(sheet[:1, 0], 255), _bytes(wanted["image"])])
    images = np.concatenate([header, sheet.reshape(-1, *sheet.shape[2:])])
    captions = [("",), *[(f"outfit {n}",) for n in range(1, len(columns))]]
    for number in range(1, len(rows) + 1):
        captions += [(f"person {number}",), *[("",)] * (len(columns) - 1)]
    write_contact_sheet(path, images, captions, columns=len(columns))


def _arrays(encoded: EncodedTable, rows: np.ndarray) -> dict[str, tf.Tensor]:
    found = {"image": unit_images(tf.constant(np.asarray(encoded.columns["image"][rows])))}
    if "mask" in encoded.columns:
        found["mask"] = tf.constant(np.asarray(encoded.columns["mask"][rows]))
    return found


def _bytes(images: tf.Tensor) -> np.ndarray:
    return np.round(255 * np.asarray(images)).astype(np.uint8)
