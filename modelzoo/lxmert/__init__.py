"""LXMERT: a stream of words and one of regions, which look at each other in the upper layers."""
