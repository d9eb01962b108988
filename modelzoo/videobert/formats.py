"""Reads and writes VideoBERT model folders; see `EncoderFiles`."""

from __future__ import annotations

from modelzoo.encoder_files import FORMS, EncoderFiles
from modelzoo.videobert.convert import VIDEOBERT

__all__ = ["FILES", "FORMS", "detect_form", "read_folder", "write_folder"]

FILES = EncoderFiles(VIDEOBERT)
detect_form, read_folder, write_folder = FILES.detect_form, FILES.read_folder, FILES.write_folder
