"""Reads and writes BERT model folders; see `EncoderFiles`."""

from __future__ import annotations

from modelzoo.bert.convert import BERT
from modelzoo.encoder_files import FORMS, EncoderFiles

__all__ = ["FILES", "FORMS", "detect_form", "read_folder", "write_folder"]

FILES = EncoderFiles(BERT)
detect_form, read_folder, write_folder = FILES.detect_form, FILES.read_folder, FILES.write_folder
