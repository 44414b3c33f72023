"""What a person types."""

from vcld.cli.main import main

__all__ = ["main"]
