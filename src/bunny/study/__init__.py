"""Studies: does a chosen set beat a random or a whole one? Selections, shares, seeds and sizes are crossed and compared."""
