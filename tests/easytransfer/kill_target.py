"""A small deterministic training with frequent saves, to be killed: `python kill_target.py RUN_DIR`."""

import sys

from toy_tasks import WordTask, words_batches

from easytransfer.config.job import RuntimeConfig, TrainConfig
from easytransfer.train.trainer import Trainer

if __name__ == "__main__":
    train = TrainConfig(
        num_epochs=6,
        learning_rate=0.01,
        weight_decay_ratio=0.01,
        ema_decay=0.9,
        num_accumulated_batches=2,
        save_checkpoint_steps=3,
        eval_every_steps=7,
        keep_checkpoint_max=2,
    )
    trainer = Trainer(WordTask(0.2), train, RuntimeConfig(deterministic=True, seed=7), sys.argv[1])
    print(trainer.fit(words_batches(300), words_batches(40, shuffle=False)))
