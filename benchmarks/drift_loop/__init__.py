"""The loop from drift to promotion in simulated time: production's pure parts, wired as the workers wire them.

    page asked ──► candidates, features, the champion or the user's arm ──► impression ──► joiner ──► outcomes
    outcomes ──► lines that learn ──► detector ──► signals ──► rule ──► training and gates ──► experiment ──► promotion

=================== ==================================================================================================
``serving``         answers, and what the joiner makes of them; every served version learns, or none does
``retraining``      what the training job does with the slots of a window
``control``         detector, orchestrator and experiment tracker, looked at every minute of the world
``storefront``      a made-up shop whose shoppers' tastes change at a known moment
``replay``          clicks of Globo.com, asked for before they happen
``rows``            what of it `make statistics` keeps
=================== ==================================================================================================

What is different from production: there is no broker, no registry and no clock but the world's, jobs take no time, and
a version that passed the gates of its training gets its experiment at once: a person overrides the gate on answers in
random order, which would send it into the shadow first (decision 25).
"""
