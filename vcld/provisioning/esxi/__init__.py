"""ESXi hosts and vCenters by the vSphere API."""
