"""From files to samples: pictures, sources, curated tables, conversation makers, mixtures. No torch."""
