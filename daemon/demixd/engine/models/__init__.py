"""Models: where their files are, and how they get there. Nothing here knows what is inside a file of weights.

    names.py    the models that Demucs publishes, and where on the hub                              [pure]
    bag.py      `NAME.yaml`: which members a model has                                              [yaml]
    records.py  the sha256 that a file had when we first saw it                                     [os]
    store.py    the models folder: where a model's files are, whether they are unchanged, the list  [os]
    hub.py      the Hugging Face hub: what it knows of a file, and its bytes                        [huggingface_hub]
    fetch.py    from the hub into the models folder                                                 [os]
    demo/       the embedded demo model, its card, and how it was trained

`engine/model.py` makes a model of the files.
"""
