"""One file per benchmark: what is asked, how answers are read, how they are scored. `USE` names its class."""
