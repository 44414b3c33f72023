"""Benchmarks: ratios and costs, measured on a private MariaDB with simulated hardware."""
