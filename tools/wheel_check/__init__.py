"""The parts of tools/check_wheel.py."""
