"""Attribution as a job: schemas, settings, engine, search."""
