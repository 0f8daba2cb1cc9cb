"""How is an OpenAI-compatible endpoint asked, with every reply kept, every failure typed, every
dollar counted?

``messages``  what is asked (Question) and what comes back (Reply or Fault)

This package imports nothing here, so that reading one module stays cheap.
"""
