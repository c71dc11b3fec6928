"""Frame of the data checks; what each kind of data set must hold is known to its task's plug-in."""
