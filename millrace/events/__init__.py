"""Events before they are on the log: their rules, files of them, and generated shoppers."""
