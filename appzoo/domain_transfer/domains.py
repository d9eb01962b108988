"""The tables of an experiment whose rows are shown in two dimensions, before and after the training."""

DOMAINS = {"": {"source": "data.source_table", "target": "data.train_table"}}
