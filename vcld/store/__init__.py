"""The only SQL: what is due, who owns it, what changes and what is told to the web site.

Functions take an open Connection and never commit, so that a caller can put several into
one transaction with ``Database.run``.
"""
