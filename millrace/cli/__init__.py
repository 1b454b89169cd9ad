"""The ``millrace`` command. Each module here is one command; nothing heavy is imported before it is needed."""
