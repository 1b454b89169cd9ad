"""Features of users and items: their layout in Redis, their maths, and the one writer of them."""
