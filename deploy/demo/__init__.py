"""``millrace demo``: Black Friday in ten minutes, on the pipeline of ``millrace run``.

============== ==================================================================================
``story``      what is done and said when, given what was seen: pure
``stage``      the pipeline, its shoppers, what can be done to them, and what is seen of them
``comparison`` live learning against nightly retraining in a simulated month, a process of its own
``plots``      the pictures at the end
============== ==================================================================================
"""
