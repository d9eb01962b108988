"""Transfer of text classifiers from source domains to a target domain."""
