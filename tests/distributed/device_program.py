"""Trains with one device or with two CPUs that TensorFlow shows: `device_program.py FOLDER DEVICES ACCUMULATED`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

folder, devices, accumulated = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)

from programs import Words, table  # noqa: E402 - the devices come first

from easytransfer.config.job import DistributionConfig, RuntimeConfig, TrainConfig  # noqa: E402
from easytransfer.data.batches import Batches  # noqa: E402
from easytransfer.distributed.devices import devices_of  # noqa: E402
from easytransfer.train.trainer import Trainer  # noqa: E402

tf.debugging.set_log_device_placement(True)
names = devices_of(DistributionConfig(distribution_strategy="MirroredStrategy"))
config = TrainConfig(learning_rate=1e-2, num_epochs=4, num_accumulated_batches=accumulated)
trainer = Trainer(Words(), config, RuntimeConfig(seed=11), devices=names)
trainer.fit(Batches(table().take(range(203)), 16, shuffle=True, seed=3, pad_multiple=1))  # the last batch has 11 rows
weights = [variable.numpy() for variable in trainer.task.model.weights]
np.savez(folder / f"{devices}-{accumulated}.npz", *weights)
