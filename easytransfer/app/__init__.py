"""What an application writes: its inputs, its target, and the network between; everything else has a default."""
