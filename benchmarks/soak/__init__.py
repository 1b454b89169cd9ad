"""``make soak``: the whole pipeline under live traffic, watched for memory, descriptors and lag that grow."""
