"""Models: where their files are, and how they get there. Nothing here knows what is inside a file of weights.

    names.py  the models that Demucs publishes, and where on the hub                              [pure]
    bag.py    `NAME.yaml`: which members a model has                                              [yaml]
    store.py  the models folder: members (`SIG.safetensors`), records of their sha256, the list   [os]
    hub.py    fetches a model from the Hugging Face hub into the models folder                    [huggingface_hub]
    demo/     the embedded demo model, its card, and how it was trained

`engine/model.py` makes a model of the files.
"""
