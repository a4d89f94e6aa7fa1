"""How Hypothesis runs here: the same examples every time, whatever the machine's speed.

``pytest --hypothesis-profile=search`` looks for new failures instead: more examples, other ones
at every run.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "checks",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "search", settings.get_profile("checks"), derandomize=False, max_examples=2000
)
settings.load_profile("checks")
