"""What does a pole of a direction respond to, in a few words? One label or one failure each.

``evidence``  Evidence (the examples of one pole and of the other) and Background (random texts)
``split``     which examples a labeler may see, and which its label is tested on
``explain``   ``label_poles``: every pole by a language model, in candidates
``prompts``   the explainer prompt, from templates/prompts/
``templates`` the files that prompts are made from, and their version
``answers``   the answer in a reply, or what is wrong with it
``agreement`` how alike the candidates of a pole are
``keywords``  the embedded labeler: over-represented terms, counted; no language model
``terms``     words, phrases, symbols and formats in a text
``by_hand``   labels that a person wrote, from labels.toml in the run folder
``similar``   which poles' labels say much the same
``precedence`` which of several answers stands for a pole
``upkeep``    labels by hand and similar labels, brought up to date in a run's database
``visible``   text from outside, made safe to show on one line

The endpoint that models answer at is asked by :mod:`builder.endpoint`.

This package imports nothing here, so that reading one module stays cheap.
"""
