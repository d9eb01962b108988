"""Exports for LiteRT of tiny applications with random weights."""

from pathlib import Path

import numpy as np

TEXTS = ["how much is it", "where is the open door of the house", "", "tabs\tand\x07bells", "good " * 40]
LABELS = ["no", "yes"]
# Runs a verb and prints at the end whether TensorFlow or a Keras package was imported.
PROGRAM = """
import sys
from appzoo.cli.main import main
code = main(sys.argv[1:])
print("HEAVY", sorted({"tensorflow", "tf_keras", "keras", "tensorflow_text"} & set(sys.modules)), file=sys.stderr)
raise SystemExit(code)
"""


def make_app(tiny_model, name="text_classify_bert", data=None, **model):
    from appzoo.discovery import find_application

    config_class, app_class = find_application(name)
    values = {
        "model_name": name,
        "data": {"first_sequence": "a", "label_name": "label", "sequence_length": 24}
        | {"label_enumerate_values": ",".join(LABELS)}
        | (data or {}),
        "model": {"pretrain_model_name_or_path": str(tiny_model)} | model,
    }
    app = app_class(config_class.model_validate(values))
    app.load_assets(None)
    app.build_model()
    # Larger weights than fresh ones, so that answers differ from text to text.
    random = np.random.default_rng(0)
    for variable in app.model.trainable_variables:
        if variable.shape.rank > 1:
            variable.assign(random.normal(0, 0.3, variable.shape))
    return app


def export(app, base, variant):
    from appzoo.jobs.export import _described
    from appzoo.jobs.export_litert import export_app_litert

    folder = base / f"assets-{app.config.model_name}"
    folder.mkdir(parents=True, exist_ok=True)
    app.save_assets(folder)
    described = _described(app, folder, Path("model-1"), variant)
    return export_app_litert(
        app, folder, int8=variant == "litert-int8", base=base, flat=False, max_batch_size=2, **described
    )
