"""Drift: whether what a model meets is still what it was made for. Pure: no clock, no client.

What comes in is counted into small sums that add up, whoever counted them, and read by two kinds of rules:

================== ==================================================================================================
of values          ``Counts`` of features and scores (``counts``), the newest day of them (``rolling``)
                   against the ``Reference`` of the model version: ``compare``, now and then
of labels          ``Block`` of outcomes (``block``) by serving time (``settling``), with what is usual at that hour
                   (``hours``): a ``ChangeDetector``, after every block
================== ==================================================================================================

The rules are in ``kolmogorov_smirnov`` and ``cells`` (chi-square, Jensen-Shannon, PSI, missing values), with
``dispersion`` for values that are alike and ``correction`` for many tests; in ``e_detector``, whose time between false
alarms is known, and in ``river_detectors`` (ADWIN, Page-Hinkley). ``storing`` is the file beside a model version.
"""
