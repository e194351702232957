"""The server's composition root: what runs where, how it starts and how it stops."""
