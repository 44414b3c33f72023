"""Windows on the computer, by OpenSSH and PowerShell. Not run here: no Windows was at hand."""
