"""What vcld did, kept in the accounting tables of OpenNebula 2.0.

Off until ``vcld accounting install`` has made the tables; then every transition of a request
writes its rows in its own transaction.
"""
