"""The REST gateway: what a site without gRPC and Kafka integrates with, and an operator steers by.

It holds no truth of its own. Events, items and commands go to their topics, and are answered when the broker has them;
recommendations come from the recommender, features from Redis; what it shows of models, learning and experiments is
read from topics.
"""
