"""Our implementation and the one that the field uses, in turns on one machine; see README.md."""
