"""From a path to arrays that a network can train on: read, split, audit, clean, cache. No Keras in here."""
