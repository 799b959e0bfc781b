"""What holds for every test."""

from hypothesis import settings

settings.register_profile("parley", deadline=None)  # a busy machine is no defect: nothing here is judged by the clock
settings.load_profile("parley")
