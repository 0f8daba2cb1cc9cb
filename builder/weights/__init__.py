"""Directions from weights: what a fine-tune wrote into the residual stream.

``directions``      ``compute_directions``: the whole stage, from model settings to a DirectionSet
``direction_file``  ``save_directions`` and ``load_directions``; needs no torch
``source``          a local folder or a hub id becomes a folder and a ModelRef
``tensors``         lazy reading of safetensors (and of safe ``.bin``) files
``checkpoint``      a model folder: its configuration and its tensors
``adapter``         a PEFT LoRA folder and its exact factors
``layout``          where the writers are: the table, and the decoder layers of a loaded model
``infer``           where the writers are: watched in a forward pass on the meta device
``delta``           one weight difference at a time
``svd``             the top singular triples of a matrix or of a product of factors
``logit_lens``      promoted and suppressed tokens of each direction

This package imports nothing here, so that reading a directions file stays free of torch.
"""
