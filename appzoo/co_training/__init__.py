"""Several small networks in place of a large one, trained together."""
