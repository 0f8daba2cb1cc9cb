"""How is an OpenAI-compatible endpoint asked, with every reply kept, every failure typed, every
dollar counted?

``messages``   what is asked (Question) and what comes back (Reply or Fault)
``client``     ChatClient: asks once per question, tries again, keeps what it gets
``transport``  one request to the server and back, within its time
``bodies``     what is sent, and what the body that comes back says
``retries``    which failures are worth another attempt, and when
``gate``       patience that all threads share
``replies``    what was answered and what it cost, in ``replies.sqlite``
``prices``     what a token costs; ``budget``  whether one more request fits
``estimate``   what a stage would ask and cost, without asking
``as_ready``   many poles worked on at once
``batch``      the same questions through a batch endpoint, across restarts;
               ``batch_lines``  the files that its answers come in
``embeddings`` vectors of texts, asked for in the same way
``access``     which endpoint, with which key

This package imports nothing here, so that reading one module stays cheap.
"""
