"""How well does a label do, on texts its labeler never saw?

``metrics``      F1 and average precision of the population, intervals, chance

This package imports nothing here, so that reading one module stays cheap.
"""
