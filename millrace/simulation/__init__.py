"""A made-up shop with people in it: what they do depends on what they are shown, and the truth about them is known.

``millrace simulate`` runs it against the real recommender and the real broker. Nothing here does I/O: the storefront
is given what it asks and where it publishes.

===================== =================================================================================
``chance``            seeded streams of random numbers: the same people and choices whatever is shown
``catalogue``         items that come and go
``people``            tastes and habits: latent, drifting, and shifted on command
``clicks``            the click model: examination, appeal, and what follows a click
``sessions``          one visit to the shop, page after page
``shelves``           what a shop shows without a recommender
``arms``, ``figures`` policies that are compared, and the true figures of each with intervals
``storefront``        sessions in time: asks, shows, publishes
``days``              the same over simulated days, in one process and without a clock
``worlds``            the kinds of world whose month is simulated: news, shop
``paired``            differences between shops with the same shoppers; days until one has recovered
===================== =================================================================================
"""
