"""Applications, one folder each. Imports modelzoo and easytransfer."""

import easytransfer  # noqa: F401 - sets TensorFlow's environment before a module here imports TensorFlow
