"""Re-identification of persons, across clothes too."""
