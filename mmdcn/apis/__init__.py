"""What tools and services call: config, command line, launch, inference, results, drawing."""
