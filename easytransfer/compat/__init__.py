"""`base_model`: an own application in four hooks, as in the original EasyTransfer.

    class MyApp(base_model):
        def build_logits(self, features, mode=None): ...      # -> (logits, labels); labels are None without a label
        def build_loss(self, logits, labels): ...             # -> scalar mean over the batch
        def build_eval_metrics(self, logits, labels): ...     # -> metrics of easytransfer.evaluators
        def build_predictions(self, predict_output): ...      # -> dict name -> tensor

    if __name__ == "__main__":
        MyApp().run()                                         # python my_app.py --mode=train --config=my_app.json

Every flag of `easy_transfer_app train` that means something here changes the configuration, such as `--overwrite` and
`--badRows=skip`; an unknown flag is refused. `FLAGS.own("name")` declares a flag of the script's own.

Layers, models and preprocessors made inside `build_logits` are made once and used again (`layers.created_once`).

Scripts import the modules of this folder by their older names, such as `easytransfer.datasets`, and `base_model`,
`Config`, `ModeKeys` and `FLAGS` from `easytransfer` itself.
"""
