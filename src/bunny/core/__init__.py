"""Types, protocols, recipes, artifact store, errors, log: what every other package stands on. No torch."""
