"""What tests and benchmarks share: seeded synthetic data and conformance classes."""
