"""The online deployable: thin triggers around shared/, composed once per worker in bootstrap.py."""
