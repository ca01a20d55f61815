"""The files of models. Nothing here interprets a file of weights (`engine/families` does), and nothing loads torch.

catalog.py  the models that Demucs publishes, their names on the hub, and which of them suits a song  [pure]
bag.py      `NAME.yaml`: which members a model has                                                    [yaml]
records.py  the sha256 that a file had when it was first seen                                         [os]
store.py    the models folder: where a model's files are, and whether they are unchanged              [os]
listing.py  every model that is there or can be fetched                                               [os]
configured.py  what a configuration asks of models that there are not, or of stems that they lack     [os]
hub.py      the Hugging Face hub: the facts of a file, and its bytes                                  [huggingface_hub]
fetch.py    from the hub into the models folder                                                       [os]
demo/       the embedded demo model, its card, and how it was trained
"""
