"""Upkeep of the project, behind `make`: environment, quickstart, learning, model zoo, wheel."""
