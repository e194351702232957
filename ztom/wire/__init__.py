"""What goes over the wire: the requests and answers that the server and its clients share.

One file per topic. Field names are snake case in Python and camel case in JSON, but for the few
that the original product spells otherwise. No model here knows HTTP, Ray or a database.
"""
