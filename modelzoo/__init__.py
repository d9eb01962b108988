"""Pre-trained models and their weights. Imports easytransfer only.

A family is a folder with `presets.json` and these modules, found by their names:
`config.CONFIG_CLASS` (with `from_folder`) and `convert.parameters_in` import no TensorFlow; `backbone.BACKBONE_CLASS`
has `from_preset`, `save_to_preset` and `example_outputs`; `tiny.write_tiny` makes a small one. Families with more than
one form of files have `formats` (`FORMS`, `read_folder`, `write_folder`).
"""
