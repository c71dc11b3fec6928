"""Parts of tools/new_config.py: what lies in a folder, and the config that trains on it."""
