"""Conformal margins of the 80 % bands, and the calibration that a server loads."""
