"""The parts of tools/dev/check_wheel.py."""
