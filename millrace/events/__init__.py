"""Events before they are on the log: their rules and files of them."""
