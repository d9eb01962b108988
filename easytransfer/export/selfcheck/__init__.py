"""Checks of a written export, free of imports from the rest of the package.

They run in a process of their own that knows TensorFlow and the operator libraries of tf.Text, as a server does;
there the folder is a top-level package. See `easytransfer.export.validate` for the way to call it.
"""
