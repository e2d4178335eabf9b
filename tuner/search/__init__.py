"""Searching: spaces, the study, the oracle, the tuner. Import the modules; this package itself stays light."""
