"""Statistics of activations: collected in one streaming pass, mergeable, independent of the range method."""
