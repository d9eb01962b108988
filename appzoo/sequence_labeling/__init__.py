"""Tags for every word or character of a text: named entities, parts of speech, word boundaries."""
