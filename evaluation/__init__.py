"""Is the ranking right? Methods and measurements, offline."""
