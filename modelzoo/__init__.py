"""Pre-trained models and their weights. Imports easytransfer only.

A family is a folder with `presets.json` and these modules, found by their names:
`config.CONFIG_CLASS` (with `from_folder`), `convert.parameter_count`, `formats` (`FORMS`, `read_folder`,
`write_folder`) and `tiny.write_tiny` import no TensorFlow; `backbone.BACKBONE_CLASS` has `from_preset` and
`save_to_preset`.
"""
