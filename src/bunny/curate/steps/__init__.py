"""Curation steps, one file each: a pool in, a `Decision` with a reason for every drop out (`use: dedup`)."""
