"""Configuration, files, compiled loops, precision, processes and random numbers: what is not about radiance fields."""
