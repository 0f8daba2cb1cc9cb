"""What does a pole of a direction respond to, in a few words? One label or one failure each.

``evidence``  Evidence (the examples of one pole and of the other) and Background (random texts)
``explain``   ``label_poles``: the whole stage; ``estimate``: what it would ask of an endpoint
``keywords``  the embedded labeler: over-represented terms, counted; no language model
``terms``     words, phrases, symbols and formats in a text
``prompts``   the explainer prompt, from templates/prompts/
``client``    an OpenAI-compatible endpoint, with a cache of replies and typed failures
``by_hand``   labels that a person wrote, from labels.toml in the run folder
``similar``   which poles' labels say much the same
``precedence`` which of several answers stands for a pole
``upkeep``    labels by hand and similar labels, brought up to date in a run's database
``visible``   text from outside, made safe to show on one line

This package imports nothing here, so that reading one module stays cheap.
"""
