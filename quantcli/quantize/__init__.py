"""From a graph and statistics to a plan, from a plan to parameters, from parameters to edits."""
