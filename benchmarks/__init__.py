"""Benchmarks: whole runs beside their rivals, in the same session. Run ``make bench``."""
