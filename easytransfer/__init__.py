"""Core of EasyTransfer: configuration, data, training, presets and export. Knows no model and no application."""

import os

__version__ = "2.0.0.dev0"

# Read by TensorFlow when it is first imported, so they are set before any module of ours imports it.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Off by default on some x86 CPUs; measured 1.4 times faster on a BERT training step there.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
