"""Whence beside other attribution software, on the same model and documents."""
