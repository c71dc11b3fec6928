"""Frame of the data checks; what a kind of data set is checked for belongs to its task's plug-in."""
