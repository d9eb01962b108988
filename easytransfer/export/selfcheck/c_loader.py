"""Check 8: the export loads through TensorFlow's C interface, with the libraries of tf.Text as the only extra.

Run as a program: `python c_loader.py TENSORFLOW_FOLDER EXPORT [LIBRARY ...]`. It does not import TensorFlow for Python,
so nothing but the shared libraries can help the model along.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

POINTER = ctypes.c_void_p
# Function -> argument types; results are pointers unless set below. From tensorflow/c/c_api.h.
PROTOTYPES = {
    "TF_NewStatus": [],
    "TF_GetCode": [POINTER],
    "TF_Message": [POINTER],
    "TF_LoadLibrary": [ctypes.c_char_p, POINTER],
    "TF_NewSessionOptions": [],
    "TF_NewGraph": [],
    "TF_LoadSessionFromSavedModel": [
        POINTER, POINTER, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, POINTER, POINTER, POINTER,
    ],
}  # fmt: skip


def load(tensorflow: Path, export: str, libraries: list[str]) -> str:
    """Returns '' if the export loads, otherwise the message of TensorFlow."""
    ctypes.CDLL(str(next(tensorflow.glob("libtensorflow_framework.*"))), ctypes.RTLD_GLOBAL)
    api = ctypes.CDLL(str(next(tensorflow.glob("libtensorflow_cc.*"))), ctypes.RTLD_GLOBAL)
    for name, arguments in PROTOTYPES.items():
        function = getattr(api, name)
        function.argtypes, function.restype = arguments, POINTER
    api.TF_GetCode.restype, api.TF_Message.restype = ctypes.c_int, ctypes.c_char_p
    status = api.TF_NewStatus()
    for library in libraries:
        api.TF_LoadLibrary(library.encode(), status)
        if api.TF_GetCode(status):
            return api.TF_Message(status).decode()
    tags = (ctypes.c_char_p * 1)(b"serve")
    graph, options = api.TF_NewGraph(), api.TF_NewSessionOptions()
    api.TF_LoadSessionFromSavedModel(options, None, export.encode(), tags, 1, graph, None, status)
    return api.TF_Message(status).decode() if api.TF_GetCode(status) else ""


if __name__ == "__main__":
    sys.exit(load(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]) or 0)
