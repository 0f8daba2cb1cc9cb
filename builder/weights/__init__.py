"""Directions from weights: what a fine-tune wrote into the residual stream.

``directions``      ``compute_directions``: the whole stage, from model settings to a DirectionSet
``plan``            what that would read, by headers alone
``direction_file``  ``save_directions`` and ``load_directions``; needs no torch
``spectra_file``    the table of spectra, a row per matrix

Which models:

``open_source``     two models opened, as something that has weight differences
``pair``            which two models the settings mean, and who named the base
``card``            the base that a model card names
``source``          a local folder or a hub id becomes a folder and a ModelRef
``checkpoint``      a model folder: its configuration and its tensors
``adapter``         a PEFT LoRA folder and its exact factors
``tensors``         lazy reading of safetensors (and of safe ``.bin``) files

Which matrices:

``layout``          the matrices of a checkpoint, and the decoder layers of a loaded model
``table``           the architectures that are known (``layouts.toml``)
``infer``           those that are not: watched in a forward pass on the meta device (``watch``)
``parts``           the stored tensors that make up a matrix: fused, transposed, one per expert
``matrix``          the entries of one matrix, block by block

What they differ by:

``delta``           one weight difference at a time, of two checkpoints
``adapter_delta``   the same where adapters are involved
``svd``             the top singular triples of a matrix or of products of factors
``truncated``       those of a large matrix, by iteration until they are right
``features``        the shape of a spectrum, noise floors, and what feeds a direction
``logit_lens``      promoted and suppressed tokens (``token_text``: as people read them)
``neighbours``      which directions point the same way
``controls``        directions that nothing meaningful wrote

This package imports nothing here, so that reading a directions file stays free of torch.
"""
