"""The face: the only package that imports click. One thin file per command."""
