"""That assets exist, their history, and who may see them; not how they are made or served."""
