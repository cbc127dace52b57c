"""Studies: does a chosen set beat a random or a whole one? Selections, shares and seeds, crossed and compared."""
