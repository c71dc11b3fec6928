"""The parts of tools/bench_ops.py, tools/bench_attention.py and tools/benchmark.py."""
