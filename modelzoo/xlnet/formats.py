"""Reads and writes XLNet model folders of Hugging Face and Google; see `EncoderFiles`."""

from __future__ import annotations

from modelzoo.encoder_files import EncoderFiles
from modelzoo.xlnet.convert import XLNET

__all__ = ["FILES", "FORMS", "detect_form", "read_folder", "write_folder"]

FORMS = XLNET.forms
FILES = EncoderFiles(XLNET)
detect_form, read_folder, write_folder = FILES.detect_form, FILES.read_folder, FILES.write_folder
