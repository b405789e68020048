"""The shell of reconciling: observe the world, carry out plans, loop, watch files."""
