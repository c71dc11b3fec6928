"""The parts of tools/bench_ops.py --device cuda and tools/bench_backbone.py."""
