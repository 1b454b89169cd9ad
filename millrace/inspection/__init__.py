"""What people look at from a terminal: records of any topic, how far workers are, dead letters."""
