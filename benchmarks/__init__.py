"""The parts of benchmark.py: contestants by family, the processes they run in, and the report."""
