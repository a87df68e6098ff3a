"""The tuner: from a task to a codec for each tensor, in four steps.

``profiling`` trains a little and measures, ``profile`` is the file that this leaves, ``solving``
turns it into a plan, ``front`` draws what every budget would give, ``verifying`` trains with the
plan beside simpler ones. ``report`` shows all of them on one page.
"""
