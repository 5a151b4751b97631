"""The proof of "effectively once": kill everything at the worst moments, then compare with one clean pass."""
