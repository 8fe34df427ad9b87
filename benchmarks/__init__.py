"""This implementation and the usual one of the field, timed alternately on one machine; see README.md."""
