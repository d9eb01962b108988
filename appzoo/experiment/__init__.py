"""Experiments: the arms of an application trained with several seeds, measured and compared."""
