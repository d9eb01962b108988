"""Tables: readers, writers, row accounting, encoding and batching."""
