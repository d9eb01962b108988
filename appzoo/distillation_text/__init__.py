"""Knowledge distillation of text classifiers."""
