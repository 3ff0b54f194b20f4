"""A real model, a real corpus, an index and a server, on one machine in minutes."""
