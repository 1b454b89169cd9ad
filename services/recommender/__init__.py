"""The recommender: answers "what should this user see now?" over gRPC.

Item state is kept in memory (``mirror``), user state is read from Redis for each request (``users``), the champion
is followed on topic ``model-events`` (``champion``), and every answer goes to topic ``impressions`` (``impressions``).
"""
