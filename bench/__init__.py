"""Benchmarks of the whole daemon on a private MariaDB, beside the Perl daemon's figures."""
