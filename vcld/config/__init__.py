"""The configuration: VCL's own ``vcld.conf``, read once and checked whole."""

from vcld.config.reader import load
from vcld.config.secret import Secret
from vcld.config.settings import Settings, keys

__all__ = ["Secret", "Settings", "keys", "load"]
