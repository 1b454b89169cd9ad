"""Drift: whether what a model meets is still what it was made for. Pure: no clock, no client.

What comes in is counted into small sums that add up, whoever counted them (``Counts`` of features and scores, ``Block``
of labels; ``Rolling`` keeps the newest), and read by two kinds of rules:

========================== =========================================================================================
``compare``                features and scores now and then, against the reference stored with the model version
``detector``               labels after every block: the interface, and what a change is
``e_detector``             the one with a known expected time between false alarms
``river_detectors``        ADWIN and Page-Hinkley behind the same interface
========================== =========================================================================================
"""
