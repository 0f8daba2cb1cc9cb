"""How well does a label do, on texts its labeler never saw? Three scorers, any judge, one measure.

``items``        the texts of a pole: which strata, what is true, what share they stand for
``stretches``    which part of a window is judged
``detection``    each text judged as a whole
``fuzzing``      each text judged by the tokens that are marked in it
``embedding``    each text by how near its embedding is to the label's (optional)
``judge``        what every judge is given, and what it gives back
``words``        a judge that looks for the words of the label; no language model
``model_judge``  a language model, by an Asker
``asking``       the clients of the models that are asked
``shown``        a text as a model sees it
``metrics``      F1 and average precision of the population, intervals, chance
``choose``       which candidate becomes the label
``percentile``   a score's place among those of the controls
``scoring``      all of it for the labels of one pole
``pools``        the texts of every pole, from the database
``spool``        scores on disk until the database can take them

This package imports nothing here, so that reading one module stays cheap.
"""
