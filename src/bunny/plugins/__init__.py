"""Bunny inside other people's evaluation kits. Nothing of Bunny imports these files; the kits do."""
