"""What image files are called."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""In any case; where one name has several, the first of these is taken."""
