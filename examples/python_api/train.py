"""Trains, from Python, what `easy_transfer_app train --config examples/text_classify/config.yaml` trains."""

from appzoo.jobs.tables import load_rows
from appzoo.text_classify.app import BertClassify
from appzoo.text_classify.config import BertClassifyConfig
from easytransfer.config.files import load_file
from easytransfer.data.batches import Batches
from easytransfer.train.trainer import Trainer

config = BertClassifyConfig.model_validate(load_file("examples/text_classify/config.yaml"))
app = BertClassify(config)
app.load_assets(None)
train, dev = (load_rows(app, table, with_labels=True) for table in (config.data.train_table, config.data.eval_table))
trainer = Trainer(app, config.train.model_copy(update={"num_epochs": 1.0}), run_dir="runs/python")
result = trainer.fit(Batches(train.encoded, 16, shuffle=True), Batches(dev.encoded, 32, shuffle=False))
print(result.best_metrics["accuracy"])
