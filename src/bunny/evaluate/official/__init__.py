"""What the benchmarks' own scripts do with a text, rule by rule, each named after the script it equals."""
