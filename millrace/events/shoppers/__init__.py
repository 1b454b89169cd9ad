"""Generated shoppers: a seeded catalogue and people who browse it, for demonstrations and load.

``python -m millrace.events.shoppers`` sends them to the broker. What they do depends on the seed only, and on
nobody's recommendations.
"""
