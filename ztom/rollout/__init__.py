"""What traffic a variant gets: the routing table, release plans, and the tests that decide on them.

Pure functions and values: nothing here knows a clock, a server or a database.
"""
