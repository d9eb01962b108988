"""Exact metrics over whole tables: collected row by row, computed once, independent of the batch size."""
