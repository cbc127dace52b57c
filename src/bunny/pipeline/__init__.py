"""The whole picture: stages joined into runs, chat with what comes out, and explanations of what was chosen."""
