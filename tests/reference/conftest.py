"""Settings of the property tests: no deadlines, as how long an example takes is no property of the law."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
