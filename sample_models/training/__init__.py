"""Training of the sample models: everything that `make_samples.py` needs."""
