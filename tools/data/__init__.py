"""Scripts that prepare real data sets."""
