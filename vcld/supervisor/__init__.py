"""The parent: looks, claims, forks, reaps and recovers. It never works on a reservation."""

from vcld.supervisor.loop import Supervisor

__all__ = ["Supervisor"]
