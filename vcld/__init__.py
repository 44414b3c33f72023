"""vcld: the daemon that turns a reservation row into a computer a person can log in to."""

__version__ = "0.1.0"
