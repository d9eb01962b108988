"""Applications, one folder each. Imports modelzoo and easytransfer."""
