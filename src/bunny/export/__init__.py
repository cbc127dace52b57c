"""A Bunny becomes what other engines run: a stock LLaVA folder, GGUF files, an adapter of its language model.

In: a model folder of this Bunny. Out: a folder in another layout, and a check that both compute the same. `opened.py`
reads, `stock.py` says the model in words that every engine knows, one file per layout writes; weights are streamed.
"""
