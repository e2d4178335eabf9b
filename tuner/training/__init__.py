"""Training with Keras: recording, and one configuration on one seed."""
