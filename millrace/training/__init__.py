"""Training a version from scratch on a window of outcomes, and the gates that it has to pass. No client in here.

    outcomes ──► SlotFile (slots) ──► fit (search) ──► Trained ──► make_reference (reference), draw (plots)
                                          └──────────────────────► gates: is it fit to be a challenger?

The process is ``workers.retrain_orchestrator.train``.
"""
