"""Speed against a textbook NeRF step, and seconds to a quality, in one measured run."""
