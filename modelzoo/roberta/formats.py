"""Reads and writes RoBERTa model folders; there are none of Google or EasyTransfer. See `EncoderFiles`."""

from __future__ import annotations

from modelzoo.encoder_files import EncoderFiles
from modelzoo.roberta.convert import ROBERTA

__all__ = ["FILES", "FORMS", "detect_form", "read_folder", "write_folder"]

FILES, FORMS = EncoderFiles(ROBERTA), ROBERTA.forms
detect_form, read_folder, write_folder = FILES.detect_form, FILES.read_folder, FILES.write_folder
