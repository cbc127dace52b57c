"""Conversations that exist already: an instruction set in LLaVA's JSON as one part of a stage's rows.

In: the files of `sources/llava_json.py`. Out: their conversations. Rows that cannot be used come from `read()` as
`Rejected`; `make` logs how many there are.
"""

from __future__ import annotations

from bunny.data.makers._stored import Stored
from bunny.data.sources.llava_json import LlavaJson


class StoredConversations(LlavaJson, Stored):
    """`{use: llava_json, path: bunny_695k.json, images: pictures/, weight: 0.5}`"""


USE = StoredConversations
