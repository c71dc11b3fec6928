"""Random calls of the operators, legal and illegal."""
