"""Data with a known answer, and probes for knowledge of the future."""
