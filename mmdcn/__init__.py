"""What all tasks share: it knows no task and no backbone.

The rooms, in the order in which they may import one another: ``errors`` and ``traits``,
``checkpoints``, ``data``, ``layers``, ``analysis``, ``engine``, ``apis``. Importing the package
itself imports none of them. See ``docs/architecture.md``.
"""
__version__ = '0.1.0'
