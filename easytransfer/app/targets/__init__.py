"""Targets that two or more applications use; one that a single application uses lives in its folder."""
