"""What freshness is worth: one made-up month of each world, once for each rhythm at which a recommender gets to know.

Live, hourly, nightly and weekly features and learning, and the most clicked items, each with the shop to itself and
with the same visitors (``millrace.evaluation.month``): no servers, the functions of production in one process. Tastes
shift once. Intervals are by shopper, differences are paired (``millrace.simulation.paired``); they tell of shoppers,
not of other worlds.

===================== =================================================================================
``measuring``         runs the months
``figures``           what of a month is kept
``clock``             how clicks of the simulation and of Globo.com are spread over items, people and days
``results``           the months measured so far: ``benchmarks/results/freshness-value.json``
``document``          ``docs/freshness-in-simulation.md``, from the results alone
``words``, ``drawings`` its words and its plot
===================== =================================================================================
"""

from benchmarks.freshness_value.measuring import run

__all__ = ["run"]
