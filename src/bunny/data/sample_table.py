"""Where `bunny.core.sample_table` was before curation needed it too."""

from bunny.core.sample_table import iterate_samples, json_value, read_samples, write_samples

__all__ = ["iterate_samples", "json_value", "read_samples", "write_samples"]
