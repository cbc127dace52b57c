"""One file per on-disk layout (`{use: table, path: …}` is `table.py`): a sample or a reason for every row."""
