"""Bunny: small vision-language models through better data.

`import bunny` is light (no torch). `bunny.load(PATH)` gives a model to chat with; importing it also registers Bunny
with transformers' Auto classes the moment transformers asks for them (see `bunny.model`).
"""

__version__ = "0.1.0"
