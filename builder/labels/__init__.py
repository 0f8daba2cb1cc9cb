"""What does a pole of a direction respond to, in a few words? One label or one failure each.

``evidence``  Evidence (the examples of one pole and of the other) and Background (random texts)
``explain``   ``label_poles``: the whole stage; ``estimate``: what it would ask of an endpoint
``keywords``  the embedded labeler: over-represented terms, counted; no language model
``terms``     words, phrases, symbols and formats in a text
``prompts``   the explainer prompt, from templates/prompts/
``client``    an OpenAI-compatible endpoint, with a cache of replies and typed failures
``split``     which examples a labeler may see, and which its label is tested on
``visible``   text from outside, made safe to show on one line

This package imports nothing here, so that reading one module stays cheap.
"""
