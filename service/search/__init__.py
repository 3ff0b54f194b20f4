"""Which rows of an index lie nearest to a query: one interface, a module for each way."""
