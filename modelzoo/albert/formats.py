"""Reads and writes ALBERT model folders; see `EncoderFiles`."""

from __future__ import annotations

from modelzoo.albert.convert import ALBERT
from modelzoo.encoder_files import FORMS, EncoderFiles

__all__ = ["FILES", "FORMS", "detect_form", "read_folder", "write_folder"]

FILES = EncoderFiles(ALBERT)
detect_form, read_folder, write_folder = FILES.detect_form, FILES.read_folder, FILES.write_folder
