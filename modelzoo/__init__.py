"""Pre-trained models and their weights. Imports easytransfer only.

A family is a folder with `presets.json` (its `model_types`, the `tokenizers` of its models, known ones, the `example`
of `zoo show`) and these modules, found by their names: `config.CONFIG_CLASS` (with `from_folder`) and
`convert.parameters_in` import no TensorFlow; `backbone.BACKBONE_CLASS` is a `modelzoo.backbone.Backbone`;
`tiny.write_tiny` makes a small one. Families with more than one form of files have `formats` (`FORMS`, `read_folder`,
`write_folder`), those that take files of other programs `weight_maps` (`write_published`).
"""

import easytransfer  # noqa: F401 - sets TensorFlow's environment before a module here imports TensorFlow
