"""Reads and writes LXMERT model folders, which are Hugging Face's; see `EncoderFiles`."""

from __future__ import annotations

from modelzoo.encoder_files import FORMS, EncoderFiles
from modelzoo.lxmert.convert import LXMERT

__all__ = ["FILES", "FORMS", "detect_form", "read_folder", "write_folder"]

FILES = EncoderFiles(LXMERT)
detect_form, read_folder, write_folder = FILES.detect_form, FILES.read_folder, FILES.write_folder
