"""Devices: the one that is here, what it can do, and the catalogue of cards that are not here."""
