"""Bare-metal blades, loaded, captured and switched by xCAT 2.

runner → parsing → client (questions) → sharing (one command for many workers) → tries, changes,
facts → site → plan, power, places, dhcplog, watch → load, capture, retrieval → provisioner, check.
"""
