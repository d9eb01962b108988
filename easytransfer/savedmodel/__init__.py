"""Reads, calls and describes a SavedModel: what serving, prediction and the checks of an export share.

All but `loading` stand on TensorFlow alone and import each other by relative paths: the self-check of an export runs
them in a process without the rest of the package (`easytransfer.export.validate`).
"""
