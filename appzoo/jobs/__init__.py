"""What the command line runs, as functions anyone can call: config in, plain dict out."""

from appzoo.jobs.evaluate import evaluate
from appzoo.jobs.export import export
from appzoo.jobs.features import extract_features
from appzoo.jobs.predict import predict
from appzoo.jobs.preprocess import preprocess
from appzoo.jobs.train import train

__all__ = ["evaluate", "export", "extract_features", "predict", "preprocess", "train"]
