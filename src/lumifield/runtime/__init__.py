"""Settings, files, images, compiled loops, precision, processes and random numbers, independent of radiance fields."""
