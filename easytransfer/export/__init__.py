"""SavedModel export and its validation."""
