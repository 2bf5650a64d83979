"""What is known about operators and targets, as data."""
