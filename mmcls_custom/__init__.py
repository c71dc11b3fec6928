"""Classification plug-in, and the home of what all tasks share: backbones, engine, checkpoints."""
