"""Looking inside trained networks: receptive fields and sampling points."""
