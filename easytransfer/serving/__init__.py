"""Server of exported models over TensorFlow Serving's REST and gRPC protocols; knows SavedModels, no application."""
